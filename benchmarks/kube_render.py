"""``python -m benchmarks.kube_render``: a lab rendered to so many Kubernetes objects, against kustomize over the same.

labctl reads lab.yaml, places, checks and writes a file per object and a kustomization per folder. ``kustomize build``
reads exactly that folder and prints it. Both as whole processes, alternately in one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.processes import LABCTL, Taken, alternately
from benchmarks.render import INSTALL, TOOLS, kustomize

SIZES = (50, 500, 5000)
PER_WORKLOAD = 4
"""Deployment, Service, NetworkPolicy and ServiceAccount."""


def lab(workloads: int) -> str:
    """Return a lab with that many deployments on three nodes of one cluster, without cards, behind one gateway."""
    hosts = {f"node-{n}": {"address": f"10.0.0.{n}", "target": "k3s"} for n in (1, 2, 3)}
    deployments = {
        f"app-{number}": {
            "engine": "container",
            "image": "ghcr.io/example/app:1.2.3",
            "task": "chat",
            "on": {"host": f"node-{number % 3 + 1}"},
            "listens": 8000,
            "memory_limit": "512 MiB",
            "env": {"NUMBER": str(number)},
            "serves": [f"app-{number}"],
        }
        for number in range(workloads)
    }
    gateway = {"engine": "litellm", "host": "node-1"}
    return json.dumps({"lab": "many", "hosts": hosts, "deployments": deployments, "gateway": gateway}, indent=1)


def measure(objects: int, rounds: int, peer: str | None) -> tuple[int, Taken, Taken | None]:
    """Return how many objects there are in the end, and what labctl and kustomize take for them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.joinpath("lab.yaml").write_text(lab(objects // PER_WORKLOAD))
        render = [*LABCTL, "render", name, "--out", f"{name}/out"]
        alternately({"first": render}, 1)
        made = sum(1 for p in folder.glob("out/k3s/*/*.yaml") if p.name != "kustomization.yaml")
        commands = {"labctl": render} | ({"kustomize": [peer, "build", f"{name}/out/k3s"]} if peer else {})
        found = alternately(commands, rounds)
        return made, found["labctl"], found.get("kustomize")


def main() -> None:
    """Print a row per size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kube_render", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of five; kustomize up to 500 objects")
    chosen = parser.parse_args()
    peer = kustomize()
    if peer is None:
        print(f"skipped: kustomize is not here: GOBIN={TOOLS / 'bin'} {INSTALL}")
    print(f"{'objects':>8} {'labctl s':>9} {'cpu s':>7} {'ms/object':>10}", end="")
    print(f" {'kustomize s':>12} {'cpu s':>7} {'labctl/kustomize':>17}" if peer else "")
    for size in SIZES:
        # kustomize grows with the square of the objects: 5,000 take it minutes, which --quick does not wait for
        asked = None if chosen.quick and size > 500 else peer
        made, ours, theirs = measure(size, 1 if chosen.quick else 5, asked)
        row = f"{made:8} {ours.wall:9.2f} {ours.cpu:7.2f} {ours.wall / made * 1000:10.2f}"
        if theirs:
            row += f" {theirs.wall:12.2f} {theirs.cpu:7.2f} {ours.wall / theirs.wall:17.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
