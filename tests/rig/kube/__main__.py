"""``python -m tests.rig.kube up|down FOLDER``: a control plane to try things on by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.rig.kube.cluster import ControlPlane


def up(folder: Path) -> None:
    """Start one and note its processes."""
    plane = ControlPlane(folder)
    plane.start({"gpu1": 1, "gpu2": 1, "gpu3": 1})
    pids = {name: [p.pid, _begun(p.pid)] for name, p in plane.programs.items()}
    (folder / "pids.json").write_text(json.dumps(pids))
    sys.stdout.write(f"KUBECONFIG={plane.kubeconfig}\n")


def down(folder: Path) -> None:
    """End exactly the processes that were noted, if they still are the same, and remove the folder."""
    for pid, begun in reversed(json.loads((folder / "pids.json").read_text()).values()):
        if _begun(pid) == begun:
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


def _begun(pid: int) -> str:
    """Return when a process began: with its number, that names it for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]](Path(sys.argv[2]))
