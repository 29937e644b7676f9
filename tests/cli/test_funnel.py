"""The one way out: every kind of end becomes an exit code and one kind of output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from labctl.cli.commands import COMMANDS
from labctl.cli.funnel import run
from labctl.diagnostics import Diagnostic, ExitCode, LabctlError
from tests.cli.running import labctl


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Return a function that makes ``labctl probe`` run a function."""

    def install(body: Callable[[], None]) -> None:
        def probe() -> None:
            """Probe."""
            body()

        module = ModuleType("labctl.cli.probe")
        module.probe = probe  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "labctl.cli.probe", module)
        monkeypatch.setitem(COMMANDS, "probe", ("labctl.cli.probe:probe", "Probe."))

    return install


Install = Callable[[Callable[[], None]], None]


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_diagnostics_and_exit_code(command: Install, capsys: pytest.CaptureFixture[str]) -> None:
    command(failing(LabctlError([Diagnostic(code="LAB001", summary="gone")], ExitCode.STALE)))
    assert run(["probe"]) == ExitCode.STALE
    assert capsys.readouterr() == ("", "error[LAB001]: gone\n\n1 error\n")


def test_interrupt(command: Install, capsys: pytest.CaptureFixture[str]) -> None:
    command(failing(KeyboardInterrupt()))
    assert run(["probe"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_says_that_it_is_one(command: Install, capsys: pytest.CaptureFixture[str]) -> None:
    command(failing(ZeroDivisionError("one by none")))
    assert run(["probe"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: this is a bug in labctl: ZeroDivisionError: one by none; run it again with")
    assert "hint: please report it" in err
    assert "Traceback" not in err


def test_tracebacks_on_request(
    command: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(failing(ZeroDivisionError()))
    assert run(["--verbose", "probe"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("LABCTL_TRACEBACK", "1")
    assert run(["probe"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_json_errors_are_data() -> None:
    ran = labctl("validate", "--json", "/no/such/lab.yaml")
    assert (ran.code, ran.err) == (1, "")
    (error,) = json.loads(ran.out)["diagnostics"]
    assert (error["code"], error["severity"], error["span"]) == ("LAB001", "error", None)


def test_errors_of_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("lab: x\nhosts: [\n")
    ran = labctl("validate", cwd=tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error[LAB004]: this `[` is never closed\n"
        " --> lab.yaml:2:8\n"
        "  |\n"
        "2 | hosts: [\n"
        "  |        ^\n"
        "  |\n"
        "hint: add the `]`, and a `,` between entries\n"
        "\n"
        "1 error in lab.yaml\n"
    )


def test_wrong_usage() -> None:
    ran = labctl("explain")
    assert (ran.code, ran.out) == (2, "")
    assert "Missing argument" in ran.err


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "LAB001"], ["explain", "--json", "LAB001"]])
def test_a_closed_pipe_is_quiet(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "labctl", *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


INTERRUPTED = """
import os, signal, sys, time, types
from labctl.cli import commands, funnel

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with SIGINT ignored

def probe() -> None:
    "Probe."
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

sys.modules["labctl.cli.probe"] = module = types.ModuleType("labctl.cli.probe")
module.probe = probe
commands.COMMANDS["probe"] = ("labctl.cli.probe:probe", "Probe.")
sys.exit(funnel.run(["probe"]))
"""


def test_ctrl_c() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_output_that_the_terminal_cannot_encode(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("日本: [\n", encoding="utf-8")
    environment = {"PYTHONIOENCODING": "ascii"}
    ran = labctl("validate", os.fsdecode(b"x\xff"), environment=environment)
    assert (ran.code, "Traceback" in ran.err) == (1, False)
    assert "\\u65e5" in labctl("validate", str(tmp_path), environment=environment).err
