"""The lint of objects: every rule is brought about once, and a quantity is what the server writes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.artefact import Object
from labctl.targets.k3s import form
from labctl.targets.k3s.lint import quantity
from labctl.targets.k3s.references import all_faults
from labctl.workload import ConfigFile, Health, Mount, Port
from tests.targets import samples
from tests.targets.test_k3s import formed, placed, plain

Change = Callable[[Any], None]


def objects() -> list[Object]:
    """Return the objects of a small lab that has one of everything."""
    where = placed(domain="lab.example")
    page = formed(
        plain(
            public=("http",),
            replicas=2,
            files=(ConfigFile(name="a", content="b", target="/etc/a"),),
            health=Health(path="/"),
            ports=(Port(name="http", listen=8080, published=None),),
            serves_to=("chat",),
        ),
        mounts=(Mount(source="data", target="/data", volume=True),),
        shm_size=1 << 30,
    )
    return list(samples.render(where, samples.server(where), samples.gateway(where), samples.task(where), page).objects)


OBJECTS = objects()


def spoilt(path: str, change: Change) -> list[str]:
    """Return what the lint says once one object is changed."""
    (index,) = [i for i, o in enumerate(OBJECTS) if o.path == path or o.path.startswith(path)]
    value = copy.deepcopy(OBJECTS[index].value)
    change(value)
    changed = [*OBJECTS[:index], dataclasses.replace(OBJECTS[index], value=value), *OBJECTS[index + 1 :]]
    return [fault.what for fault in all_faults(changed)]


def pod(value: Any) -> Any:
    return value["spec"]["template"]["spec"]


def main(value: Any) -> Any:
    return pod(value)["containers"][0]


def assign(place: Callable[[Any], Any], key: Any, new: Any) -> Change:
    def change(value: Any) -> None:
        place(value)[key] = new

    return change


def grow(place: Callable[[Any], Any], key: str, new: Any) -> Change:
    def change(value: Any) -> None:
        place(value).setdefault(key, []).append(new)

    return change


def top(value: Any) -> Any:
    return value


def spec(value: Any) -> Any:
    return value["spec"]


def metadata(value: Any) -> Any:
    return value["metadata"]


def _size(value: Any) -> None:
    next(v for v in pod(value)["volumes"] if "emptyDir" in v)["emptyDir"]["sizeLimit"] = "1024Mi"


def _claim(value: Any) -> None:
    value["spec"]["resources"]["requests"]["storage"] = "1000Gi "


def _backend(value: Any) -> None:
    value["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "other"


def _caller(value: Any) -> None:
    value["spec"]["ingress"][-1]["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] = "nobody"


PAGE = "page/deployment-page.yaml"
CHAT = "chat/deployment-chat.yaml"
SERVICE = "page/service-page.yaml"
POLICY = "page/networkpolicy-page.yaml"
SPOILT: dict[str, tuple[str, Change, str]] = {
    "a name with capitals": (PAGE, assign(metadata, "name", "Page"), "no name of a Deployment"),
    "a service that begins with a digit": (SERVICE, assign(metadata, "name", "1page"), "begins with a letter"),
    "no namespace": (PAGE, lambda v: v["metadata"].pop("namespace") and None, "needs a namespace"),
    "a long label": (PAGE, assign(lambda v: v["metadata"]["labels"], "x", "y" * 64), "cannot be the value of label"),
    "a bad label": (PAGE, assign(lambda v: v["metadata"]["labels"], "a/b/c", "y"), "no name of a label"),
    "a number as label": (PAGE, assign(lambda v: v["metadata"]["labels"], "a", 1), "cannot be the value of label"),
    "another selector": (PAGE, assign(lambda v: spec(v)["selector"], "matchLabels", {"a": "b"}), "its own pods"),
    "two containers": (PAGE, grow(pod, "containers", {"name": "page", "image": "a:1"}), "containers have one name"),
    "two volumes": (PAGE, grow(pod, "volumes", {"name": "data", "emptyDir": {}}), "volumes have one name"),
    "a volume's name": (PAGE, grow(pod, "volumes", {"name": "a_b", "emptyDir": {}}), "no name of a volume"),
    "no tag": (PAGE, assign(main, "image", "registry:5000/page"), "has no tag"),
    "two variables": (
        PAGE,
        assign(main, "env", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "stands there twice",
    ),
    "a number as variable": (PAGE, assign(main, "env", [{"name": "A", "value": 1}]), "is not text"),
    "a variable's name": (PAGE, assign(main, "env", [{"name": "1A", "value": "1"}]), "no name of a variable"),
    "a port's name": (PAGE, assign(lambda v: main(v)["ports"][0], "name", "web--x"), "no name of a port"),
    "a port's number": (PAGE, assign(lambda v: main(v)["ports"][0], "containerPort", 99999), "`99999` is no port"),
    "two ports": (PAGE, grow(main, "ports", {"name": "http", "containerPort": 1}), "ports have one name"),
    "a probe": (PAGE, assign(lambda v: main(v)["startupProbe"]["httpGet"], "port", "web"), "startupProbe asks at port"),
    "a mount of nothing": (PAGE, grow(main, "volumeMounts", {"name": "no", "mountPath": "/x"}), "no volume of its pod"),
    "two mounts": (PAGE, grow(main, "volumeMounts", {"name": "data", "mountPath": "/data"}), "is mounted twice"),
    "a place": (PAGE, grow(main, "volumeMounts", {"name": "data", "mountPath": "x"}), "no place for a mount"),
    "a number of bytes": (PAGE, assign(main, "resources", {"limits": {"memory": 1024}}), "`1024` is no quantity"),
    "another spelling": (PAGE, assign(main, "resources", {"limits": {"cpu": "0.1"}}), "`0.1` as `100m`"),
    "half a card": (CHAT, assign(main, "resources", {"limits": {"nvidia.com/gpu": "500m"}}), "in whole numbers"),
    "cards asked for": (CHAT, assign(main, "resources", {"limits": {"nvidia.com/gpu": "1"}}), "not what it may have"),
    "a size": (PAGE, _size, "`1024Mi` as `1Gi`"),
    "too much text": ("page/configmap", assign(lambda v: v["data"], "a", "x" * (1 << 20)), "1 MiB at most"),
    "a file's key": ("page/configmap", assign(lambda v: v["data"], "a/b", "x"), "no key of a ConfigMap"),
    "a value": ("gateway/secret", assign(top, "stringData", {"A": "b"}), "belong into no rendered file"),
    "a service's port": (SERVICE, assign(lambda v: spec(v)["ports"][0], "port", 0), "`0` is no port"),
    "a claim": ("_volumes/persistentvolumeclaim-data", _claim, "`1000Gi ` is no quantity"),
    "a job that restarts": ("task/job", assign(pod, "restartPolicy", "Always"), "need `restartPolicy"),
    "a host name": ("page/ingress", assign(lambda v: spec(v)["rules"][0], "host", "*.Lab"), "no host name"),
    "a doubled object": (CHAT, lambda v: v["metadata"].update(name="page"), "another object has its kind"),
    "a service of nobody": (SERVICE, assign(spec, "selector", {"a": "b"}), "it selects no pod"),
    "a port of nobody": (SERVICE, assign(lambda v: spec(v)["ports"][0], "targetPort", "web"), "does not have"),
    "an ingress to nowhere": ("page/ingress", _backend, "which is not there"),
    "a policy of nobody": (
        POLICY,
        assign(lambda v: spec(v)["podSelector"], "matchLabels", {"a": "b"}),
        "selects no pod",
    ),
    "a caller that is nobody": (POLICY, _caller, "a rule for nobody"),
    "a budget of nobody": (
        "page/poddisruptionbudget",
        assign(lambda v: spec(v)["selector"], "matchLabels", {"a": "b"}),
        "selects no pod",
    ),
    "no account": (PAGE, assign(pod, "serviceAccountName", "other"), "needs the ServiceAccount `other`"),
    "no configuration": (
        PAGE,
        grow(pod, "volumes", {"name": "x", "configMap": {"name": "y"}}),
        "needs the ConfigMap `y`",
    ),
    "no secret": (PAGE, grow(pod, "volumes", {"name": "x", "secret": {"secretName": "y"}}), "needs the Secret `y`"),
    "no claim": (
        PAGE,
        grow(pod, "volumes", {"name": "x", "persistentVolumeClaim": {"claimName": "y"}}),
        "needs the PersistentVolumeClaim `y`",
    ),
    "no such key": (
        PAGE,
        assign(main, "env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "gateway-env", "key": "B"}}}]),
        "is `B` of Secret `gateway-env`: not there",
    ),
}


def test_what_labctl_renders_is_clean() -> None:
    assert [(f.item.path, f.what) for f in all_faults(OBJECTS)] == []
    assert len({o.value["kind"] for o in OBJECTS}) >= 12


@pytest.mark.parametrize("name", SPOILT)
def test_rule(name: str) -> None:
    path, change, said = SPOILT[name]
    assert [what for what in spoilt(path, change) if said in what]


def number(text: str) -> Fraction:
    """Return what a quantity stands for."""
    digits = text.rstrip("mkKMGTPEi")
    unit = text[len(digits) :]
    if unit == "m":
        return Fraction(digits) / 1000
    base = 1024 if unit.endswith("i") else 1000
    power = " kMGTPE".index(unit.removesuffix("i").replace("K", "k") or " ")
    return Fraction(digits) * Fraction(base) ** power


SIZES = st.integers(0, 1 << 60) | st.builds(lambda n, p: n * 1000**p, st.integers(0, 5000), st.integers(0, 4))


@given(SIZES | st.builds(lambda n, p: n << (10 * p), st.integers(0, 5000), st.integers(0, 4)))
def test_bytes_are_written_as_the_server_writes_them(size: int) -> None:
    text = form.memory(size)
    assert list(quantity(text)) == []
    assert number(text) == size


@given(st.integers(min_value=1, max_value=10**7))
def test_cores_are_written_as_the_server_writes_them(thousandths: int) -> None:
    text = form.cores(thousandths / 1000)
    assert list(quantity(text)) == []
    assert number(text) == Fraction(thousandths, 1000)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.1", "100m"),
        ("1000m", "1"),
        ("1500m", None),
        ("20Gi", None),
        ("0", None),
    ],
)
def test_spellings(text: str, canonical: str | None) -> None:
    """As ``Quantity.CanonicalizeBytes`` of k8s.io/apimachinery has it, and a real API server showed."""
    expected = [] if canonical is None else [f"the server writes the quantity `{text}` as `{canonical}`"]
    assert list(quantity(text)) == expected


@given(st.text(alphabet="$()ab{}", max_size=12))
def test_kubernetes_gives_back_every_text(text: str) -> None:
    assert expand(form.expanded(text)) == text


def expand(text: str) -> str:
    """Return what Kubernetes makes of a text (k8s.io/kubernetes, third_party/forked/golang/expansion/expand.go)."""
    out, i = "", 0
    while i < len(text):
        if text[i] == "$" and i + 1 < len(text):
            if text[i + 1] == "$":
                out, i = out + "$", i + 2
                continue
            if text[i + 1] == "(" and ")" in text[i + 2 :]:
                end = text.index(")", i + 2)
                out, i = out + f"<{text[i + 2 : end]}>", end + 1
                continue
        out, i = out + text[i], i + 1
    return out
