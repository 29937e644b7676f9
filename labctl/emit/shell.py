"""Values → words of a POSIX shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from labctl.emit import refuse


def words(arguments: Iterable[str]) -> str:
    """Return a command line that the shell splits into exactly these arguments. EmitError for a NUL byte."""
    return " ".join(word(argument) for argument in arguments)


def word(argument: str) -> str:
    """Return one argument as the shell has to see it."""
    if "\0" in argument:
        refuse(f"the argument {argument!r}", "it has a NUL byte")
    return shlex.quote(argument)
