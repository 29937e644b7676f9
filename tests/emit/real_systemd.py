"""systemd's own parsers, called in its shared library: the reader that the emitted text is for."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import pytest

_UNQUOTE_AND_UNESCAPE = (1 << 5) | (1 << 1)
"""``EXTRACT_UNQUOTE | EXTRACT_CUNESCAPE`` of ``src/basic/extract-word.h``, as ``Exec…=`` and ``Environment=`` use."""


def library() -> ctypes.CDLL:
    """Return libsystemd-shared; skips the test, saying so, where there is none."""
    for folder in ("/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib/aarch64-linux-gnu/systemd", "/usr/lib/systemd"):
        for path in sorted(Path(folder).glob("libsystemd-shared-*.so")):
            return ctypes.CDLL(str(path))
    pytest.skip("systemd's own parser (libsystemd-shared) is not on this machine")


def split(line: str) -> list[str]:
    """Split a value into words as systemd does for ``Exec…=``, before specifiers and variables."""
    extract = library().extract_first_word
    rest, word, words = ctypes.c_char_p(line.encode()), ctypes.c_char_p(), list[str]()
    while True:
        found = extract(ctypes.byref(rest), ctypes.byref(word), None, _UNQUOTE_AND_UNESCAPE)
        assert found >= 0, f"systemd refuses {line!r}"
        if found == 0:
            return words
        words.append((word.value or b"").decode())


def read_environment_file(text: str) -> dict[str, str]:
    """Read an ``EnvironmentFile=`` as systemd does."""
    shared = library()
    found = ctypes.POINTER(ctypes.c_char_p)()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        assert shared.load_env_file(None, file.name.encode(), ctypes.byref(found)) == 0, f"systemd refuses {text!r}"
    entries: dict[str, str] = {}
    for number in range(len(text)):
        if ctypes.cast(found, ctypes.c_void_p).value is None or found[number] is None:
            break
        name, _, value = found[number].decode().partition("=")
        entries[name] = value
    return entries
