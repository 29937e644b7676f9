"""Help: cheap at the top, the same as typer's, and true to the commands."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.cli.app import LazyGroup, make_app
from labctl.cli.commands import COMMANDS
from labctl.cli.help import top_level_help
from tests.cli.running import labctl

MODULES = (
    "import sys; from labctl.cli.funnel import run; run(sys.argv[1:]); print(*sorted(sys.modules), file=sys.stderr)"
)
HEAVY = {"rich", "pydantic", "ruamel", "jinja2", "httpx", "kubernetes", "ansible_runner", "numpy", "gguf"}


def loaded(*arguments: str) -> set[str]:
    """Return the top-level packages that are imported once a command has run."""
    done = subprocess.run([sys.executable, "-c", MODULES, *arguments], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_top_level_help_imports_next_to_nothing(arguments: list[str]) -> None:
    assert not loaded(*arguments) & {*HEAVY, "typer", "click", "re", "dataclasses", "typing", "inspect", "pathlib"}


@pytest.mark.parametrize("arguments", [["--version"], ["validate", "--help"], ["explain", "LAB021"]])
def test_small_commands_import_no_heavy_package(arguments: list[str]) -> None:
    assert not loaded(*arguments) & (HEAVY - {"pydantic"})  # typer itself imports pydantic


def test_top_level_help_is_what_typer_prints() -> None:
    by_typer = labctl("--verbose", "--help", environment={"COLUMNS": "80"})
    assert by_typer.out == top_level_help()
    assert labctl("--help", environment={"COLUMNS": "80"}) == by_typer
    assert labctl("--help", environment={"COLUMNS": "200"}) == by_typer
    assert (by_typer.code, by_typer.err) == (0, "")


def test_narrow_terminals_get_narrow_help() -> None:
    assert max(len(line) for line in labctl("--help", environment={"COLUMNS": "60"}).out.splitlines()) < 60


def test_help_fits_on_a_terminal() -> None:
    assert all(len(line) < 79 for line in top_level_help().splitlines())


def test_no_arguments_show_help() -> None:
    assert labctl() == labctl("--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_what_the_table_says(name: str) -> None:
    target, summary = COMMANDS[name]
    module, _, function = target.partition(":")
    text = getattr(importlib.import_module(module), function).__doc__
    assert text is not None
    assert text.splitlines()[0] == summary
    shown = labctl(name, "--help")
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: labctl {name} ")
    assert summary in re.sub(r"\s+", " ", shown.out)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_modules_are_thin(name: str) -> None:
    module = importlib.import_module(COMMANDS[name][0].partition(":")[0])
    assert module.__file__ is not None
    assert len(Path(module.__file__).read_text().splitlines()) <= 80


def test_importing_the_app_imports_no_command() -> None:
    code = "import labctl.cli.app, sys; print(*(m for m in sys.modules if m.startswith('labctl.cli.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"labctl.cli.app", "labctl.cli.commands"}


def test_unknown_commands_suggest_a_near_one() -> None:
    ran = labctl("valdate")
    assert (ran.code, ran.out) == (2, "")
    assert "Error: there is no command `valdate`; did you mean `validate`?" in ran.err


def test_version() -> None:
    assert re.fullmatch(r"labctl \d+\.\d+\.\d+\S*\n", labctl("--version").out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    words = {"COMP_WORDS": "labctl va", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "labctl va"}
    extra = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    ran = labctl(environment={"_LABCTL_COMPLETE": f"complete_{shell}", **words, **extra})
    assert "validate" in ran.out
    assert "explain" not in ran.out


def test_completion_script() -> None:
    ran = labctl(environment={"_LABCTL_COMPLETE": "source_bash"})
    assert ran.code == 0
    assert "_LABCTL_COMPLETE=complete_bash" in ran.out


def test_completion_can_be_installed(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "SHELL": "/bin/bash"}
    assert "completion" in labctl("--show-completion", "bash", environment=environment).out
    assert labctl("--install-completion", "bash", environment=environment).code == 0
    assert list(tmp_path.rglob("labctl*"))


def test_the_group_serves_the_table() -> None:
    app = make_app()
    assert isinstance(app, LazyGroup)
    assert app.list_commands(None) == list(COMMANDS)
    assert app.get_command(None, "nope") is None
