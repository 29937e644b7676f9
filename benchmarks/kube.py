"""``python -m benchmarks.kube``: plan and apply of 300 objects against ``kubectl apply --server-side`` of the same.

On a real control plane (``tests/rig/kube``), by turns in the same run, each in a namespace of its own. A program's time
is that of its whole process: Python's and kubectl's start, reading the objects, and everything that they ask of the
server. labctl's plan tries every new object on the server (a dry run), lists what it owns, and shows differences. Its
apply carries out a saved plan: lock, another look, the objects and the ledger. "plan + apply" is both in one process,
as `labctl apply` does. kubectl only applies.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from labctl.artefact import Cluster, HostRoot, Manager, Object, Tree
from labctl.hosts import fleet
from labctl.plan.diff import diff
from labctl.plan.wire import plan_from_json, plan_to_json
from labctl.secrets import Secrets
from labctl.views.plan import render_plan
from tests.rig.kube.cluster import CONTEXT, ControlPlane, binaries

AIMS: Mapping[str, float | None] = {
    "plan, all new": 1.0,
    "apply, all new": 1.2,
    "plan, nothing to do": 1.0,
    "plan, all changed": 1.0,
    "apply, all changed": 1.2,
    "plan + apply, all changed": None,
}


def values(namespace: str, count: int, mark: str) -> Iterator[dict[str, Any]]:
    """Yield what labs are made of: as many of each kind; the workloads have no pods."""
    for index in range(count):
        meta = {"name": f"thing-{index:04}", "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "bench"}}
        match index % 5:
            case 0:
                yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"mark": mark}}
            case 1:
                yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**meta, "annotations": {"m": mark}}}
            case 2:
                port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
                spec: dict[str, Any] = {"selector": {"app": mark}, "ports": [port]}
                yield {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
            case 3:
                spec = {"podSelector": {"matchLabels": {"app": mark}}, "policyTypes": ["Ingress"]}
                yield {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
            case _:
                yield deployment(meta, mark)


def deployment(meta: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """Return a workload without pods."""
    name = {"app": str(meta["name"])}
    room = {"cpu": "100m", "memory": "64Mi"}
    container = {
        "name": "main",
        "image": "registry.example/engine:1",
        "env": [{"name": "MARK", "value": mark}],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
        "resources": {"requests": room, "limits": room},
    }
    template = {"metadata": {"labels": name}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": name}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": dict(meta), "spec": spec}


def write(folder: Path, namespace: str, count: int, mark: str) -> None:
    """Write one file per object."""
    folder.mkdir(exist_ok=True)
    for value in values(namespace, count, mark):
        (folder / f"{value['kind'].lower()}-{value['metadata']['name']}.json").write_text(json.dumps(value))


def child(action: str, folder: Path, namespace: str) -> None:
    """Be one run of labctl: read the files as rendered objects, plan, and apply if that is asked."""
    objects = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        objects.append(Object(host="k3s", path=file.name, value=json.loads(content), content=content))
    cluster = Cluster(namespace=namespace, context=CONTEXT, lab=namespace)
    root = HostRoot(host="k3s", root="kubernetes", state="", managers=(Manager.KUBERNETES,), cluster=cluster)
    tree = Tree.of([root, *objects])
    saved = folder.with_suffix(".plan")
    if action == "apply":
        plan = plan_from_json(saved.read_bytes())
    else:
        plan = diff(tree, fleet.observe(tree, Secrets()), {}, lab=namespace)
        sys.stdout.write(render_plan(plan))
        saved.write_text(plan_to_json(plan))
    assert not plan.errored, plan.diagnostics
    if action != "plan":
        report = fleet.apply(plan, tree, Secrets(), lambda _: None, fleet.How(exact=action == "apply"))
        assert report.ok, report.diagnostics


class Bench:
    """A control plane and what is run against it."""

    def __init__(self, plane: ControlPlane, folder: Path, count: int) -> None:
        self.plane, self.folder, self.count = plane, folder, count
        self.seconds: dict[tuple[str, str], list[float]] = {}

    def round(self, number: int) -> None:
        """Run everything once."""
        ours, theirs = f"ours-{number}", f"theirs-{number}"
        for namespace in (ours, theirs):
            self.plane.kubectl("create", "namespace", namespace)
        for mark, words in (("one", "all new"), ("two", "all changed"), ("three", "all changed")):
            mine, other = self.folder / f"{ours}-{mark}", self.folder / f"{theirs}-{mark}"
            write(mine, ours, self.count, mark)
            write(other, theirs, self.count, mark)
            if number % 2:
                self.kubectl(words, other)
            if mark == "three":
                self.labctl("both", f"plan + apply, {words}", mine, ours)
            else:
                self.labctl("plan", f"plan, {words}", mine, ours)
                self.labctl("apply", f"apply, {words}", mine, ours)
            if not number % 2:
                self.kubectl(words, other)
        self.labctl("plan", "plan, nothing to do", self.folder / f"{ours}-three", ours)
        self.kubectl("nothing to do", self.folder / f"{theirs}-three")
        self.plane.kubectl("delete", "namespace", ours, theirs, "--wait=false")

    def labctl(self, action: str, label: str, files: Path, namespace: str) -> None:
        """Time one run of labctl."""
        self.time("labctl", label, [sys.executable, "-m", "benchmarks.kube", "--child", action, str(files), namespace])

    def kubectl(self, label: str, files: Path) -> None:
        """Time one run of kubectl."""
        program = binaries()
        assert program is not None
        where = [f"--kubeconfig={self.plane.kubeconfig}", f"--context={CONTEXT}"]
        command = [str(program / "kubectl"), *where, "apply", "--server-side", "-f", str(files)]
        self.time("kubectl", label, command)

    def time(self, program: str, label: str, command: list[str]) -> None:
        """Run a program and note how long it took."""
        environment = {**os.environ, "KUBECONFIG": str(self.plane.kubeconfig)}
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        self.seconds.setdefault((program, label), []).append(time.perf_counter() - begun)
        assert done.returncode == 0, done.stderr

    def table(self) -> bool:
        """Print what came out; tell whether every aim was met."""
        met = True
        print(f"{'':26}{'labctl':>9}{'kubectl':>9}{'ratio':>8}{'aim':>8}")
        for label, aim in AIMS.items():
            words = label.partition(", ")[2]
            mine, theirs = median(self.seconds["labctl", label]), median(self.seconds["kubectl", words])
            ratio = mine / theirs
            met = met and (aim is None or ratio <= aim)
            wanted = "" if aim is None else f"{aim:7.1f}×"
            print(f"{label:26}{mine:7.2f} s{theirs:7.2f} s{ratio:7.2f}×{wanted}")
        return met


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="fail when an aim is not met")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]), options.child[2])
        return 0
    if binaries() is None:
        print("skipped: there is no kube-apiserver: run tests/tools/install-kube")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `timeout` must not leave a control plane behind
    with tempfile.TemporaryDirectory() as name:
        plane = ControlPlane(Path(name) / "plane")
        plane.start({})
        try:
            bench = Bench(plane, Path(name), options.objects)
            for number in range(options.rounds):
                bench.round(number)
        finally:
            plane.stop()
    met = bench.table()
    return 0 if met or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
