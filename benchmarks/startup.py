"""``python -m benchmarks.startup``: small commands against a Python that does nothing, and what start-up is made of."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections import Counter
from pathlib import Path

from benchmarks.processes import LABCTL, PYTHON, alternately

EXAMPLE = Path(__file__).parent.parent / "examples/quickstart"
COMMANDS = {
    "python -c pass": (*PYTHON, "-c", "pass"),
    "labctl --help": (*LABCTL, "--help"),
    "labctl --version": (*LABCTL, "--version"),
    "labctl explain LAB071": (*LABCTL, "explain", "LAB071"),
    "labctl validate --help": (*LABCTL, "validate", "--help"),
}
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def imports() -> Counter[str]:
    """Return the microseconds that importing each package takes when the quickstart is validated."""
    command = [PYTHON[0], "-X", "importtime", *LABCTL[1:], "validate", str(EXAMPLE)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    by_package: Counter[str] = Counter()
    for line in said.splitlines():
        if found := _IMPORT.match(line):
            parts = found[2].split(".")
            by_package[".".join(parts[:2] if parts[0] == "labctl" else parts[:1])] += int(found[1])
    return by_package


def main() -> None:
    """Print the table and, with ``--imports``, what importing costs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five rounds instead of thirty")
    parser.add_argument("--imports", action="store_true", help="show what importing costs, by package")
    chosen = parser.parse_args()
    found = alternately(COMMANDS, 5 if chosen.quick else 30)
    bare = next(iter(found.values()))
    print(f"{'command':26} {'wall ms':>8} {'cpu ms':>8} {'× wall':>7} {'× cpu':>7}")
    for name, taken in found.items():
        ratios = f"{taken.wall / bare.wall:7.2f} {taken.cpu / bare.cpu:7.2f}"
        print(f"{name:26} {taken.wall * 1000:8.1f} {taken.cpu * 1000:8.1f} {ratios}")
    if chosen.imports:
        for package, microseconds in imports().most_common(25):
            print(f"{microseconds / 1000:8.1f} ms  {package}")


if __name__ == "__main__":
    main()
