"""A process of its own that looks at servers through supervisord until its input ends: ``observer SOCKET``."""

from __future__ import annotations

import json
import select
import sys

from labctl.swap.drivers import Supervisor

UP = frozenset({"RUNNING", "STARTING", "STOPPING"})
"""States in which a program has a process. One that has been told to stop still has its memory."""


def main(socket: str) -> None:
    """Print every set of servers that was there at one moment."""
    supervisor, seen = Supervisor(socket), set[frozenset[str]]()
    sys.stdout.write("looking\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        found = supervisor._call("getAllProcessInfo", ())
        seen.add(frozenset(p["name"] for p in found if p["statename"] in UP))
    sys.stdout.write(json.dumps([sorted(names) for names in seen]))


if __name__ == "__main__":
    main(sys.argv[1])
