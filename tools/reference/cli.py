"""The pages of the command line and of its exit codes."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys

from labctl import diagnostics
from labctl.cli.commands import COMMANDS, SUMMARY
from tools.reference.text import code, document, table

_HEAD = f"""\
{SUMMARY}

LAB is a file or a folder; in a folder, `lab.yaml` is read. Results go to standard output, everything else to standard
error; `--json` puts results and errors alike on standard output. See also the [exit codes](exit-codes.md).
"""


def page() -> str:
    """Return docs/reference/cli.md: what ``--help`` says, for every command."""
    commands = [f"## labctl {name}\n\n{code(_help(name), 'text')}" for name in COMMANDS]
    return document("Command line", _HEAD, code(_help(), "text"), *commands)


def _help(*command: str) -> str:
    environment = {**os.environ, "COLUMNS": "90", "NO_COLOR": "1"}
    call = [sys.executable, "-m", "labctl", *command, "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=environment)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def exit_codes() -> str:
    """Return docs/reference/exit-codes.md, from the class and the text under each of its values."""
    (body,) = [n for n in ast.parse(inspect.getsource(diagnostics.ExitCode)).body if isinstance(n, ast.ClassDef)]
    rows = []
    for value, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(value, ast.Assign) and isinstance(text, ast.Expr) and isinstance(value.value, ast.Constant):
            said = ast.literal_eval(text.value)
            rows.append([str(value.value.value), inspect.cleandoc(said).replace("``", "`").replace("\n", " ")])
    return document("Exit codes", table(["status", "means"], rows))
