"""What start-up leaves out, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "p106-farm"

UNUSED = ("importlib.metadata", "email.message", "zipfile", "httpx", "jinja2", "rich", "typer", "labctl.hosts.fleet")


@pytest.mark.parametrize("module", UNUSED)
def test_the_use_cases_do_not_load_what_only_few_labs_need(module: str) -> None:
    script = f"import sys, labctl.usecases; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


HEAVY = ("ansible", "ansible_runner", "pexpect", "kubernetes", "httpx", "labctl.hosts.supervisor")
"""What only an apply needs, and not every one."""
RUN = """
import sys
from labctl.__main__ import main
sys.argv = ["labctl", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted(name for name in sys.modules if name in {heavy}))
"""


@pytest.mark.parametrize("command", ["--help", "apply --help", "rollback --help", "validate", "render", "plan"])
def test_commands_that_change_no_host_do_not_load_what_changes_one(command: str, tmp_path: Path) -> None:
    lab = [] if command.endswith("--help") else [str(EXAMPLE)]
    options = {"render": ["--out", str(tmp_path / "out")], "plan": ["--offline"]}.get(command, [])
    heavy = [name for name in HEAVY if command != "plan" or not name.startswith("labctl.")]
    script = RUN.replace("{heavy}", repr(set(heavy)))
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split(), *lab, *options],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout.splitlines()[-1:] == ["loaded:"], done.stdout + done.stderr


def test_pydantic_would_still_look_for_plugins_where_we_leave_them_out() -> None:
    script = "from pydantic.plugin._loader import get_plugins; print(tuple(get_plugins()))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "()"
