"""Pulling and building container images: programs that take long and tell how far they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable

from labctl.agent.call import Call, Reply, answer

LAST_LINES = 40
"""Lines kept of what a program says, to tell what went wrong."""
TICK = 0.2
"""Seconds between two looks at whether the image is still wanted."""
REPORT_EVERY = 0.5
"""Seconds between two progress events."""
PATIENCE = 10.0
"""Seconds that Docker has to end once nobody wants the image."""
WINDOW = struct.pack("HHHH", 50, 100, 0, 0)
"""Rows and columns: below 111 columns Docker shows figures and no bars."""
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_LAYER = re.compile(
    r"([0-9a-f]{12}): ([A-Z][a-z]+(?: [a-z]+)*)(?:\s+([\d.]+) ?([kKMGT]?B)(?:/([\d.]+) ?([kKMGT]?B))?)?"
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def pull(call: Call) -> Reply:
    """Pull ``reference``. Events: bytes that are ``done``, ``layers`` that are, and ``of`` how many.

    Docker shows bytes to terminals only, so it gets one. Returns the exit status as ``code`` and its last words as
    ``said``.
    """
    layers = Layers()
    reported = 0.0

    def progress(line: str) -> None:
        nonlocal reported
        if layers.heard(line) and time.monotonic() - reported >= REPORT_EVERY:
            reported = time.monotonic()
            call.event(layers.event())

    code, said = _follow(call, ["docker", "pull", call.values["reference"]], progress)
    call.event(layers.event())
    return answer(code=code, said=said)


def build(call: Call) -> Reply:
    """Build the image ``reference`` from the folder ``context`` with the label ``label``. Events: each ``line``.

    Returns the exit status as ``code`` and the builder's last words as ``said``.
    """
    values = call.values
    argv = ["docker", "build", "--label", values["label"], "--tag", values["reference"], values["context"]]
    code, said = _follow(call, argv, lambda line: call.event({"line": line}), terminal=False)
    return answer(code=code, said=said)


class Layers:
    """How far the layers of an image are."""

    def __init__(self) -> None:
        self._done: dict[str, float] = {}
        self._total: dict[str, float] = {}
        self._whole: set[str] = set()

    def heard(self, line: str) -> bool:
        """Take a line of ``docker pull``; tell whether it is about a layer."""
        found = _LAYER.match(line)
        if found is None:
            return False
        layer, what, done, unit, total, total_unit = found.groups()
        self._done.setdefault(layer, 0)
        if total is not None:
            self._total[layer] = _bytes(total, total_unit)
        if what == "Downloading" and done is not None:
            self._done[layer] = _bytes(done, unit)
        elif what in {"Download complete", "Pull complete", "Verifying Checksum", "Extracting"}:
            self._done[layer] = max(self._done[layer], self._total.get(layer, 0))
        if what in {"Pull complete", "Already exists"}:
            self._whole.add(layer)
        return True

    def event(self) -> dict[str, int]:
        """Return how far they are together."""
        return {"done": int(sum(self._done.values())), "layers": len(self._whole), "of": len(self._done)}


def _bytes(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]


def _follow(call: Call, argv: list[str], heard: Callable[[str], None], *, terminal: bool = True) -> tuple[int, str]:
    """Run a program, hear each line as it comes; return its exit status and its last lines."""
    mine, its = pty.openpty() if terminal else os.pipe()
    try:
        if terminal:
            fcntl.ioctl(its, termios.TIOCSWINSZ, WINDOW)
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=its, stderr=its, start_new_session=True, env=_environment()
        )
    except OSError as error:
        os.close(mine)
        return 127, f"{argv[0]}: {error.strerror}"
    finally:
        os.close(its)
    try:
        said = _listen(call, mine, heard)
        return process.wait(), "\n".join(said)
    except BaseException:
        _end(process)
        raise
    finally:
        os.close(mine)


def _environment() -> dict[str, str]:
    return {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}


def _listen(call: Call, source: int, heard: Callable[[str], None]) -> list[str]:
    """Read until the end; return the last lines, without those about layers."""
    rest, said = b"", list[str]()
    while True:
        call.check()
        if not select.select([source], [], [], TICK)[0]:
            continue
        try:
            chunk = os.read(source, 64 << 10)
        except OSError:  # a terminal's way to say that nobody is left on its other side
            chunk = b""
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n") if chunk else (rest, b"")
        for line in lines:
            text = _CONTROL.sub("", line.decode(errors="replace")).strip()
            if text:
                heard(text)
            if text and not _LAYER.match(text):
                said = [*said[-LAST_LINES:], text]
        if not chunk:
            return said


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that nobody waits for; Docker gives up a pull when its client goes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
