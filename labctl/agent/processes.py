"""Names for processes that no other process, earlier or later, has."""

from __future__ import annotations

import os

from labctl.agent.call import Call, Reply, answer


def whoami(call: Call) -> Reply:  # noqa: ARG001 - an operation
    """Return the name of this process."""
    return answer(name=own_name())


def alive(call: Call) -> Reply:
    """Tell whether the process of a ``name`` runs: same boot, same number, same start."""
    name = str(call.values["name"])
    return answer(alive=name == name_of(name.partition(".")[0]))


def own_name() -> str:
    """Return this process's number, start time and the machine's boot id."""
    return name_of(str(os.getpid())) or str(os.getpid())


def name_of(pid: str) -> str | None:
    """Return ``pid.start.boot`` of a running process, None when there is none of that number."""
    try:
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        boot = _text("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else f"{pid}.{fields[19]}.{boot}"


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
