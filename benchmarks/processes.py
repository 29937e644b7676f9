"""How long whole processes take: by turns with what they are compared with, so that a busy machine slows both."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

PYTHON = (sys.executable,)
LABCTL = (sys.executable, "-m", "labctl")


@dataclass(frozen=True, slots=True)
class Taken:
    """Medians over all rounds, in seconds.

    Attributes:
        wall: from start to end.
        cpu: user and system time, which a busy machine hardly changes.
    """

    wall: float
    cpu: float


def alternately(commands: Mapping[str, Sequence[str]], rounds: int) -> Mapping[str, Taken]:
    """Run every command once to warm the caches and then ``rounds`` times, by turns; return their medians."""
    found: dict[str, list[Taken]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            taken = _once(command)
            if number:
                found[name].append(taken)
    return {n: Taken(median(t.wall for t in ts), median(t.cpu for t in ts)) for n, ts in found.items()}


def _once(command: Sequence[str]) -> Taken:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    before, start = _cpu(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    wall, cpu = time.perf_counter() - start, _cpu() - before
    if done.returncode:
        message = f"{' '.join(command)} failed:\n{done.stderr.decode()}"
        raise RuntimeError(message)
    return Taken(wall, cpu)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
