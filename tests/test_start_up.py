"""What start-up leaves out, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNUSED = ("importlib.metadata", "email.message", "zipfile", "httpx", "jinja2", "rich", "typer", "labctl.hosts.fleet")


@pytest.mark.parametrize("module", UNUSED)
def test_the_use_cases_do_not_load_what_only_few_labs_need(module: str) -> None:
    script = f"import sys, labctl.usecases; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_pydantic_would_still_look_for_plugins_where_we_leave_them_out() -> None:
    script = "from pydantic.plugin._loader import get_plugins; print(tuple(get_plugins()))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "()"
