"""The examples for Kubernetes, applied twice, switched and destroyed on a real API server."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from labctl import operate, switching, usecases
from labctl.hosts.events import Event
from labctl.operate import Scope
from labctl.plan.model import Action
from labctl.plan.observed import UnitState
from labctl.usecases import Loaded
from tests.rig.kube.cluster import CONTEXT, ControlPlane

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SENTINEL = "sentinel-Qx77"


def load(name: str, folder: Path, first_host: str, root: str) -> Loaded:
    """Load an example whose context is the test's and whose secrets have values."""
    copy = folder / name
    shutil.copytree(EXAMPLES / name, copy)
    (copy / "lab.test.yaml").write_text(f"hosts: {{{first_host}: {{k3s: {{context: {CONTEXT}}}}}}}\n")
    loaded = usecases.load(copy, ("test",))
    _, names = operate.sources(loaded, operate.tree_of(loaded, [root]), invent=False)
    generated = set(loaded.need_rendered().placed.lab.secrets.generate)
    env = copy / ".env"
    env.touch(mode=0o600)
    env.write_text("".join(f"{n}=sk-{SENTINEL}-{n}\n" for n in sorted(names - generated)))
    return loaded


@pytest.fixture
def home(tmp_path: Path, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def apply(loaded: Loaded, root: str, events: list[Event]) -> operate.Work:
    tree = operate.tree_of(loaded, [root])
    work = operate.make_plan(loaded, Scope(hosts=(root,)), operate.known_secrets(loaded, tree))
    report = operate.apply(work, events.append)
    assert report.ok, report.diagnostics
    return work


def versions(plane: ControlPlane, namespace: str) -> dict[str, str]:
    kinds = "cm,secret,deploy,sts,ds,job,svc,pvc,ing,netpol,sa,pdb"
    text = plane.kubectl("get", kinds, "-n", namespace, "-l", "labctl.dev/lab", "-o", "json")
    items = json.loads(text)["items"]
    return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in items}


def test_the_droplet(home: Path, plane: ControlPlane) -> None:
    plane.node("gpu-lab", 1)
    loaded = load("k3s-droplet", home, "gpu-lab", "k3s")
    events: list[Event] = []
    first = apply(loaded, "k3s", events)
    assert first.plan.counts().keys() == {Action.CREATE}
    before = versions(plane, "ai-lab")
    assert len(before) > 60
    again = apply(loaded, "k3s", events)
    assert again.nothing_to_do
    assert versions(plane, "ai-lab") == before

    rows = operate.status(loaded)[0]
    states = {row.unit.name: row.seen.state for row in rows if row.host == "k3s"}
    assert states.pop("vllm-ocr") is UnitState.STOPPED
    assert set(states.values()) == {UnitState.RUNNING, UnitState.FINISHED}

    switch = switching.prepare(loaded, "gpu", "vllm-ocr")
    assert {"Deployment/ollama", "Deployment/vllm-ocr"} <= {c.name for c in switch.work.plan.todo}
    assert switching.carry_out(switch, events.append).ok
    rows = operate.status(loaded)[0]
    states = {row.unit.name: row.seen.state for row in rows}
    assert (states["ollama"], states["vllm-ocr"]) == (UnitState.STOPPED, UnitState.RUNNING)
    stays = operate.make_plan(loaded, Scope(hosts=("k3s",)))
    assert stays.nothing_to_do  # what was switched to holds until lab.yaml says otherwise

    history, _ = operate.history(loaded, ["k3s"], 10)
    assert [(e.action, e.result) for e in history] == [("apply", "done")] * 3  # twice by hand, once by the switch

    told = "".join(str(e) for e in events)
    assert SENTINEL not in told
    kinds = "cm,deploy,sts,ds,job,pod,svc,ing,events"
    assert SENTINEL not in plane.kubectl("-n", "ai-lab", "get", kinds, "-o", "json", "--show-managed-fields")

    gone = operate.make_plan(loaded, Scope(hosts=("k3s",), destroy=True))
    assert operate.apply(gone, events.append).ok
    assert {name.partition("/")[0] for name in versions(plane, "ai-lab")} == {"PersistentVolumeClaim"}
    data = operate.make_plan(loaded, Scope(hosts=("k3s",), destroy=True, data=True))
    assert operate.apply(data, events.append).ok
    assert plane.api().get("/api/v1/namespaces/ai-lab") is None


def test_a_cluster_of_three_gpu_nodes(home: Path, plane: ControlPlane) -> None:
    for name, count in (("control", 0), ("gpu-1", 2), ("gpu-2", 2), ("gpu-3", 4)):
        plane.node(name, count)
    loaded = load("gpu-cluster", home, "control", "farm")
    events: list[Event] = []
    apply(loaded, "farm", events)
    assert apply(loaded, "farm", events).nothing_to_do
    pods = json.loads(plane.kubectl("-n", "models", "get", "pods", "-o", "json"))["items"]
    cards: Counter[str] = Counter()
    for pod in pods:
        for container in pod["spec"]["containers"]:
            limits = (container.get("resources") or {}).get("limits") or {}
            if pod["status"]["phase"] == "Running":
                cards[pod["spec"]["nodeName"]] += int(limits.get("nvidia.com/gpu", 0))
    assert {node: n for node, n in cards.items() if n} == {"gpu-1": 2, "gpu-2": 2, "gpu-3": 4}
    gone = operate.make_plan(loaded, Scope(hosts=("farm",), destroy=True, data=True))
    assert operate.apply(gone, events.append).ok
