"""What goes onto the nodes of a cluster, and in which order its objects come."""

from __future__ import annotations

import dataclasses

from labctl.artefact import HostRoot, Manager, SecretFile
from labctl.placed import PlacedGpu
from labctl.quantity import GIB
from labctl.targets.k3s.waves import waves
from tests.targets import samples
from tests.targets.test_k3s import named, placed, plain


def test_slices_are_told_to_the_device_plugin() -> None:
    where = placed(time_slicing=4, charts={"nvidia-device-plugin": None})
    chart = named(samples.render(where, samples.server(where)), "HelmChart").value
    assert chart["metadata"]["namespace"] == "kube-system"
    assert chart["spec"]["targetNamespace"] != "default"
    values = chart["spec"]["valuesContent"]
    assert "replicas: 4" in values
    assert "failRequestsGreaterThanOne: true" in values
    assert "runtimeClassName: nvidia" in values


def test_a_node_is_prepared_only_when_asked() -> None:
    mirror = dataclasses.replace(placed(), mirror="mirror.example:5000/lab")
    alone = samples.render(mirror, samples.server(mirror))
    assert set(alone.roots) == {"k3s"}
    loader = named(alone, "Job", "fetch-").value["spec"]["template"]["spec"]["containers"][0]
    assert loader["image"].startswith("mirror.example:5000/lab/curlimages/curl:")
    asked = dataclasses.replace(
        placed(prepare=True, disable=("traefik",), token="K3S_TOKEN", node="n1"), mirror="mirror.example:5000/lab"
    )
    tree = samples.render(asked, samples.server(asked))
    assert isinstance(tree.roots["box"], HostRoot)
    assert tree.roots["box"].root == "/"
    config = samples.text(tree, "50-labctl.yaml")
    assert "node-name: n1" in config
    assert "- traefik" in config
    assert '"^(.*)$": lab/$1' in samples.text(tree, "registries.yaml")
    (token,) = [a for a in tree.artefacts if isinstance(a, SecretFile)]
    assert token.path.endswith("labctl-token")


def test_power_limits_are_a_unit_of_the_prepared_host() -> None:
    cards = (PlacedGpu(index=0, model="card", vendor="nvidia", memory=8 * GIB, power_limit=90),)
    where = dataclasses.replace(placed(prepare=True), gpus=cards)
    tree = samples.render(where, samples.server(where))
    assert [u.name for u in tree.units if u.host == "box"] == ["gpu-power"]
    assert tree.roots["box"].managers == (Manager.SYSTEMD,)


def test_those_who_serve_come_first() -> None:
    order = waves(
        [
            plain("page", after=("gateway",)),
            plain("gateway", after=("database",)),
            plain("database", serves_to=("gateway",)),
            plain("engine", serves_to=("gateway", "monitor")),
            plain("monitor", serves_to=("page",)),
        ]
    )
    assert order["database"] == order["engine"] < order["gateway"] < order["page"]
    assert order["engine"] < order["monitor"] < order["page"]


def test_circles_of_callers_have_an_end() -> None:
    order = waves([plain("a", serves_to=("b",)), plain("b", serves_to=("a",)), plain("c", after=("c",))])
    assert set(order) == {"a", "b", "c"}
