"""Ctrl-C while hosts are worked on: the first one stops between two steps, the second one at once.

SIGTERM and SIGHUP (a closed terminal) count as Ctrl-C. labctl's children have sessions of their own, so that a Ctrl-C
on the terminal reaches labctl alone; whoever stops at once ends them, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE: Final = 0.3
"""Seconds between asking children to end and ending them."""
_INTERRUPTED: Final = 130
_SHOW_CURSOR: Final = "\x1b[?25h"


@contextlib.contextmanager
def at_once_on_second_interrupt() -> Iterator[None]:
    """Let the first interrupt raise KeyboardInterrupt, and the second one end labctl and its children."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
        asked.append(number)
        if len(asked) > 1:
            end_at_once()
        _say("stopping after the step that is under way; Ctrl-C again stops at once")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def end_at_once() -> None:
    """End all children and this process, whatever they are doing. Exit status 130."""
    children = descendants(os.getpid())
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(child, number)
        time.sleep(GRACE if number is signal.SIGTERM and children else 0)
    _say("stopped at once: the step that was under way may be half done; the same command goes on from there")
    os._exit(_INTERRUPTED)


def descendants(process: int) -> tuple[int, ...]:
    """Return the children of a process, their children, and so on."""
    parents = _parents()
    found, looked = [process], 0
    while looked < len(found):
        found += [child for child, parent in parents.items() if parent == found[looked] and child not in found]
        looked += 1
    return tuple(found[1:])


def _parents() -> Mapping[int, int]:
    """Return process → parent, of all processes."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        return {int(pid): int(parent) for pid, parent in map(str.split, listed.splitlines())}
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(folder.name)] = int(
                    (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
                )
    return found


def _say(text: str) -> None:
    """Write a line to standard error, past whatever else is being written there."""
    show = _SHOW_CURSOR if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{show}\n{text}\n".encode() if show else f"{text}\n".encode())
