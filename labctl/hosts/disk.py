"""A full disk, said as such: whatever was to be written, the remedy is another one than for a refusal."""

from __future__ import annotations

import errno
import os
from typing import Final

from labctl.diagnostics import Diagnostic, DocPath

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def unless_full(host: str, error: OSError, otherwise: Diagnostic, path: DocPath | None = None) -> Diagnostic:
    """Return what an error of the operating system means: that the disk is full (LAB194), or ``otherwise``."""
    if error.errno not in FULL:
        return otherwise
    return _full(host, str(error.filename or ""), path or otherwise.path)


def unless_said_full(host: str, said: str, otherwise: Diagnostic) -> Diagnostic:
    """Do the same for what another program said, which only has words."""
    if not any(os.strerror(number) in said for number in FULL):
        return otherwise
    return _full(host, "", otherwise.path, said)


def _full(host: str, file: str, path: DocPath | None, detail: str = "") -> Diagnostic:
    return Diagnostic(
        code="LAB194",
        summary=f"`{host}` has no space left{f' for `{file}`' if file else ''}",
        detail=detail,
        path=path or ("hosts", host),
        hint="make room there (see: df -h), then run the same command again; no file was left half written",
    )
