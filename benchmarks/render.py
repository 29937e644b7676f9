"""``python -m benchmarks.render``: render of generated labs against ``kustomize build`` of as many objects.

A lab of N servers renders to one compose file with N services. kustomize gets N Deployments and N Services with a name
prefix and a common label, which is the least it is used for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.processes import LABCTL, Taken, alternately

SIZES = (50, 500, 5000)
TOOLS = Path(os.environ.get("LABCTL_TOOLS") or Path.home() / ".cache/labctl-tools")
INSTALL = "go install sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"


def lab(services: int) -> str:
    """Return a lab with that many deployments on one host, without cards."""
    deployments = {
        f"app-{number}": {
            "engine": "container",
            "image": "ghcr.io/example/app:1.2.3",
            "task": "chat",
            "on": {"host": "box"},
            "port": 10000 + number,
            "listens": 8000,
            "memory_limit": "512 MiB",
            "env": {"NUMBER": str(number)},
            "serves": [f"app-{number}"],
        }
        for number in range(services)
    }
    return json.dumps({"lab": "many", "hosts": {"box": {"target": "compose"}}, "deployments": deployments}, indent=1)


def kustomization(folder: Path, objects: int) -> None:
    """Write a kustomization of that many Deployments, each with its Service."""
    documents = []
    for number in range(objects):
        name, labels = f"app-{number}", {"app": f"app-{number}"}
        container = {
            "name": "app",
            "image": "ghcr.io/example/app:1.2.3",
            "ports": [{"containerPort": 8000}],
            "env": [{"name": "NUMBER", "value": str(number)}],
            "resources": {"limits": {"memory": "512Mi"}},
        }
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        documents += [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
            },
        ]
    folder.joinpath("all.yaml").write_text("\n---\n".join(json.dumps(d) for d in documents))
    labels_ = [{"pairs": {"lab": "many"}}]
    folder.joinpath("kustomization.yaml").write_text(
        json.dumps({"resources": ["all.yaml"], "namePrefix": "many-", "labels": labels_})
    )


def kustomize() -> str | None:
    """Return the path of kustomize, None when it is not here."""
    return shutil.which("kustomize", path=f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}")


def measure(services: int, rounds: int, peer: str | None) -> tuple[Taken, Taken | None]:
    """Return what labctl and kustomize take for so many services."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.joinpath("lab.yaml").write_text(lab(services))
        commands = {"labctl": [*LABCTL, "render", name, "--out", f"{name}/out"]}
        if peer:
            kustomization(folder, services)
            commands["kustomize"] = [peer, "build", name]
        found = alternately(commands, rounds)
        return found["labctl"], found.get("kustomize")


def main() -> None:
    """Print a row per size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of five; kustomize up to 500 services")
    chosen = parser.parse_args()
    peer = kustomize()
    if peer is None:
        print(f"skipped: kustomize is not here: GOBIN={TOOLS / 'bin'} {INSTALL}")
    heading = f"{'services':>8} {'labctl s':>9} {'cpu s':>7} {'ms/service':>11}"
    print(heading + (f" {'kustomize s':>12} {'cpu s':>7} {'labctl/kustomize':>17}" if peer else ""))
    for services in SIZES:
        # kustomize grows with the square: 5000 services take it minutes, which --quick does not wait for
        asked = None if chosen.quick and services > 500 else peer
        ours, theirs = measure(services, 1 if chosen.quick else 5, asked)
        row = f"{services:8} {ours.wall:9.2f} {ours.cpu:7.2f} {ours.wall / services * 1000:11.2f}"
        if theirs:
            row += f" {theirs.wall:12.2f} {theirs.cpu:7.2f} {ours.wall / theirs.wall:17.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
