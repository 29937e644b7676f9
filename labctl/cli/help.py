"""``labctl --help`` without typer: the same text, at the cost of a bare Python."""

from __future__ import annotations

import os

from labctl.cli.commands import COMMANDS, SUMMARY

_WIDTH = 78
_OPTIONS = """\
Options:
  --version             Show the version and exit.
  -v, --verbose         Show the traceback of an internal error.
  --install-completion  Install completion for the current shell.
  --show-completion     Show completion for the current shell, to copy it or
                        customize the installation.
  -h, --help            Show this message and exit.
"""


def wants_help(argv: list[str]) -> bool:
    """Whether the top-level help is asked for, on a terminal of the usual width; typer serves narrower ones."""
    return argv in ([], ["--help"], ["-h"]) and "_LABCTL_COMPLETE" not in os.environ and _columns() >= 80


def _columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def top_level_help() -> str:
    """Return what typer prints for ``labctl --help`` in 80 columns."""
    width = max(len(name) for name in COMMANDS) + 2
    rows = "".join(f"  {name:<{width}}{_wrap(text, width + 2)}\n" for name, (_, text) in COMMANDS.items())
    return f"Usage: labctl [OPTIONS] COMMAND [ARGS]...\n\n  {SUMMARY}\n\n{_OPTIONS}\nCommands:\n{rows}"


def _wrap(text: str, indent: int) -> str:
    """Break a text that starts in column ``indent`` as textwrap would, without the cost of importing it."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 <= _WIDTH - indent or not lines[-1]:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
        else:
            lines.append(word)
    return f"\n{' ' * indent}".join(lines)
