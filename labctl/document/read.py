"""Reading lab.yaml and its overlays from disk: the only part of this package that touches files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from labctl.diagnostics import Diagnostic, Result
from labctl.document.document import Document
from labctl.document.overlays import overlay
from labctl.document.parser import MAX_CHARACTERS, parse, too_large
from labctl.document.source import Source
from labctl.quantity import format_size

FILE_NAME: Final = "lab.yaml"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def find_lab(path: Path) -> Path:
    """Return the lab file that a path on the command line means: itself, or ``lab.yaml`` in that folder."""
    return path / FILE_NAME if _is_folder(path) else path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file can have: what reads it says so
        return False


def overlay_path(lab: Path, name: str) -> Path:
    """Return the overlay of that name beside a lab: ``lab.local.yaml`` for ``lab.yaml`` and ``local``."""
    return lab.with_name(f"{lab.stem}.{name}{lab.suffix}")


def read_document(path: Path, overlays: Sequence[str] = ()) -> Result[Document]:
    """Read a lab (a file, or a folder that holds ``lab.yaml``) and lay the named overlays over it, in order.

    Every problem of every file is reported; there is a document only when all of them could be read.
    """
    lab = find_lab(path)
    result = _read(lab, hint=_missing_hint(path, lab))
    for name in overlays:
        result = _lay_over(result, lab, name)
    return result


def _lay_over(base: Result[Document], lab: Path, name: str) -> Result[Document]:
    if not name or "/" in name:
        hint = "give the part between the dots of `lab.NAME.yaml`"
        return Result(None, (*base.diagnostics, _diagnostic(f"`{name}` is no name of an overlay", hint)))
    path = overlay_path(lab, name)
    over = _read(path, hint=f"`--overlay {name}` reads `{path.name}` beside the lab")
    found = (*base.diagnostics, *over.diagnostics)
    if base.value is None or over.value is None:
        return Result(None, found)
    merged = overlay(base.value, over.value)
    return Result(merged.value, (*found, *merged.diagnostics))


def _read(path: Path, hint: str) -> Result[Document]:
    try:
        data = _read_bytes(path)
    except FileNotFoundError:
        return _failed(f"there is no file `{path}`", hint)
    except (OSError, ValueError) as error:
        return _failed(f"cannot read `{path}`: {_reason(error)}", "check the path, and who may read the file")
    return decode(data, str(path)) if isinstance(data, bytes) else Result(None, (data,))


def _read_bytes(path: Path) -> bytes | Diagnostic:
    """Return a file's content; a diagnostic for what is no file, without opening it: a FIFO would block."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return _diagnostic(
                f"`{path}` is not a regular file", "give the path of a file, or of a folder with lab.yaml"
            )
        # A character takes at most four bytes.
        if status.st_size > MAX_CHARACTERS * 4:
            return too_large(str(path), format_size(status.st_size))
        return file.read(MAX_CHARACTERS * 4 + 1)


def decode(data: bytes, file: str) -> Result[Document]:
    """Parse the bytes of a file, which are UTF-8."""
    if len(data) > MAX_CHARACTERS:
        return Result(None, (too_large(file, format_size(len(data))),))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Result(None, (_not_utf8(data, file, error),))
    return parse(text, file)


def _not_utf8(data: bytes, file: str, error: UnicodeDecodeError) -> Diagnostic:
    if data.startswith(_UTF16):
        return Diagnostic(code="LAB002", summary=f"`{file}` is UTF-16, not UTF-8", hint="save it as UTF-8")
    source = Source(file, data.decode("utf-8", errors="replace"))
    offset = len(data[: error.start].decode("utf-8"))
    return Diagnostic(
        code="LAB002",
        summary=f"the file is not UTF-8: byte {error.start} is 0x{data[error.start]:02X}",
        span=source.span(offset, offset + 1),
        hint="save the file as UTF-8",
    )


def _missing_hint(path: Path, lab: Path) -> str:
    if path != lab:
        return f"name the lab's file or folder, or start one with `labctl init {path}`"
    close = [p.name for p in lab.parent.glob("*.y*ml")] if _is_folder(lab.parent) else []
    return f"this folder holds {', '.join(f'`{name}`' for name in sorted(close)[:5])}" if close else ""


def _reason(error: OSError | ValueError) -> str:
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()


def _failed(summary: str, hint: str = "") -> Result[Document]:
    return Result(None, (_diagnostic(summary, hint),))


def _diagnostic(summary: str, hint: str = "") -> Diagnostic:
    return Diagnostic(code="LAB001", summary=summary, hint=hint)
