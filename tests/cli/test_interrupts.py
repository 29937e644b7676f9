"""Ctrl-C: the first one raises, the second one ends the process and all of its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labctl.cli.interrupts import at_once_on_second_interrupt, descendants

PARENT = """
import subprocess, sys, time
from labctl.cli.interrupts import at_once_on_second_interrupt
with at_once_on_second_interrupt():
    child = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60"], start_new_session=True)
    try:
        print(child.pid, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("first", flush=True)
        while True:
            time.sleep(1)
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_one_ends_children_in_sessions_of_their_own(number: signal.Signals) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PARENT], **pipes) as parent:  # type: ignore[call-overload]
        child = int(parent.stdout.readline())
        while len(family := descendants(parent.pid)) < 3:
            time.sleep(0.02)
        assert child in family
        parent.send_signal(number)
        assert parent.stdout.readline() == "first\n"
        parent.send_signal(number)
        begun = time.monotonic()
        _, err = parent.communicate(timeout=10)
        assert parent.returncode == 130
        assert time.monotonic() - begun < 3
        assert "stopping after the step" in err
        assert "stopped at once" in err
    deadline = time.monotonic() + 5
    while any(map(alive, family)):
        assert time.monotonic() < deadline, "a child lives on"
        time.sleep(0.02)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), at_once_on_second_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
