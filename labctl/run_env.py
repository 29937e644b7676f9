"""``python -m labctl.run_env FILE -- PROGRAM ARGUMENTS…``: run a program with the variables of an environment file.

supervisor has no environment files; with this, secrets reach a program without standing in its configuration or in
anybody's argv. Standard library only, and it becomes the program: no process is left in between.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

_ENTRY: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\$]|\\["\\$])*)"\n')
_SKIPPED: Final = re.compile(r"(?:#[^\n]*)?\n")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def parse(text: str) -> dict[str, str]:
    """Return the variables of a file that ``labctl.emit.env`` wrote; ValueError (without the text) for any other."""
    entries: dict[str, str] = {}
    position = 0
    while position < len(text):
        if entry := _ENTRY.match(text, position):
            entries[entry[1]] = _ESCAPE.sub(r"\1", entry[2])
        found = entry or _SKIPPED.match(text, position)
        if found is None:
            message = f'line {text.count(chr(10), 0, position) + 1} is not of the form NAME="value"'
            raise ValueError(message)
        position = found.end()
    return entries


def main(argv: list[str]) -> None:
    """Read the file and become the program; SystemExit with the usage for other arguments."""
    if len(argv) < 4 or argv[2] != "--":
        sys.exit("usage: python -m labctl.run_env FILE -- PROGRAM [ARGUMENT…]")
    entries = parse(Path(argv[1]).read_bytes().decode())
    program = argv[3]
    os.execvpe(program, argv[3:], os.environ | entries)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv)
