"""``python -m benchmarks.labs``: validate, render and plan of each example, as whole processes."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.processes import LABCTL, PYTHON, alternately

EXAMPLES = Path(__file__).parent.parent / "examples"
AIM = 0.3
"""Seconds that each command may take, start-up included."""


def main() -> None:
    """Print a row per example."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of fifteen")
    chosen = parser.parse_args()
    commands = {"bare": [*PYTHON, "-c", "pass"]}
    labs = sorted(p.parent for p in EXAMPLES.glob("*/lab.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        for lab in labs:
            commands[f"{lab.name} validate"] = [*LABCTL, "validate", str(lab)]
            commands[f"{lab.name} render"] = [*LABCTL, "render", str(lab), "--out", f"{folder}/{lab.name}"]
            commands[f"{lab.name} plan"] = [*LABCTL, "plan", "--offline", str(lab)]
        found = alternately(commands, 3 if chosen.quick else 15)
    print(f"milliseconds of wall (and cpu) time; the aim is {AIM * 1000:.0f}")
    print(f"{'python -c pass':18} {found['bare'].wall * 1000:5.0f} ({found['bare'].cpu * 1000:4.0f})")
    print(f"{'lab':18} {'validate':>14} {'render':>14} {'plan --offline':>14}")
    for lab in labs:
        taken = [found[f"{lab.name} {what}"] for what in ("validate", "render", "plan")]
        cells = (f"{t.wall * 1000:5.0f} ({t.cpu * 1000:4.0f}){'!' if t.wall > AIM else ' '}" for t in taken)
        print(f"{lab.name:18} " + " ".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
