"""What an API server would refuse in an object and its published schemas do not say. Pure.

Rules of one object are here, those between objects in ``references``. labctl's own objects pass; what lab.yaml lays
over them (``extra: {k3s: …}``) may not. Sources: k8s.io/apimachinery ``validation.go`` and ``quantity.go``,
k8s.io/kubernetes ``pkg/apis/core/validation``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from labctl.artefact import Object
from labctl.values import dataclass

Value = Mapping[str, Any]

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PORT_NAME: Final = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_ENV: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_QUANTITY: Final = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E)?")
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_LONGEST: Final = {"Service": 63, "Namespace": 63, "StatefulSet": 52, "Job": 63}
"""A StatefulSet's name gets a hash of 10 characters in a label of its pods, a Job's name is a label."""
_LIMIT: Final = 1 << 20
"""Bytes of a ConfigMap or Secret (etcd's limit for one object is larger; the server refuses at 1 MiB)."""
UNSPACED: Final = frozenset({"Namespace"})


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that an API server would refuse, or that could never work."""

    item: Object
    what: str


def faults(items: Iterable[Object]) -> Iterator[Fault]:
    """Yield what is wrong with each object by itself."""
    for item in items:
        yield from (Fault(item, what) for what in _of(item))


def _of(item: Object) -> Iterator[str]:
    value, kind = item.value, str(item.value["kind"])
    yield from _metadata(value, kind)
    rule = _RULES.get(kind)
    if rule is not None:
        yield from rule(value)
    spec = pod_spec(value)
    if spec is not None:
        yield from _selects_itself(value)
        yield from _pod(spec)
    if item.entries:
        yield from (f"`{key}` is no key of a Secret" for key in item.entries if not _KEY.fullmatch(key))


def pod_spec(value: Value) -> Value | None:
    """Return the spec of the pods that an object makes, None when it makes none."""
    found = (
        (value.get("spec") or {}).get("template", {}).get("spec") if isinstance(value.get("spec"), Mapping) else None
    )
    return found if isinstance(found, Mapping) else None


def _metadata(value: Value, kind: str) -> Iterator[str]:
    metadata = value["metadata"]
    name = str(metadata["name"])
    pattern = _SERVICE if kind == "Service" else _DNS_LABEL if kind in _LONGEST else _SUBDOMAIN
    longest = _LONGEST.get(kind, 253)
    if not pattern.fullmatch(name) or len(name) > longest:
        begins = "begins with a letter, " if kind == "Service" else ""
        yield f"`{name}` is no name of a {kind}: it {begins}has small letters, digits and `-`, at most {longest}"
    if (kind not in UNSPACED) != ("namespace" in metadata):
        yield f"a {kind} {'has no' if kind in UNSPACED else 'needs a'} namespace"
    yield from _labels(metadata.get("labels") or {})


def _labels(labels: Mapping[str, Any]) -> Iterator[str]:
    for key, text in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield f"`{key}` is no name of a label"
        if not isinstance(text, str) or not _LABEL.fullmatch(text):
            yield f"`{text}` cannot be the value of label `{key}`: 63 letters, digits, `-`, `_` and `.` at most"


def _selects_itself(value: Value) -> Iterator[str]:
    template = value["spec"]["template"]
    labels = (template.get("metadata") or {}).get("labels") or {}
    yield from _labels(labels)
    wanted = (value["spec"].get("selector") or {}).get("matchLabels") or {}
    if value["kind"] != "Job" and not (wanted and wanted.items() <= labels.items()):
        yield "its selector does not match the labels of its own pods"


def _pod(spec: Value) -> Iterator[str]:
    containers = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    names = [str(c["name"]) for c in containers]
    if len(set(names)) < len(names):
        yield "two of its containers have one name"
    volumes = [str(v["name"]) for v in spec.get("volumes", ())]
    yield from (f"`{n}` is no name of a volume" for n in volumes if not _DNS_LABEL.fullmatch(n) or len(n) > 63)
    if len(set(volumes)) < len(volumes):
        yield "two of its volumes have one name"
    for container in containers:
        yield from _container(container, frozenset(volumes))
    yield from (
        q
        for v in spec.get("volumes", ())
        if "sizeLimit" in (v.get("emptyDir") or {})
        for q in quantity(v["emptyDir"]["sizeLimit"])
    )


def _container(container: Value, volumes: frozenset[str]) -> Iterator[str]:
    if not _DNS_LABEL.fullmatch(str(container["name"])) or len(str(container["name"])) > 63:
        yield f"`{container['name']}` is no name of a container"
    image = str(container.get("image", ""))
    if "@sha256:" not in image and ":" not in image.rpartition("/")[2]:
        yield f"image `{image}` has no tag"
    yield from _environment(container)
    yield from _ports(container)
    yield from _mounts(container, volumes)
    yield from _resources(container.get("resources") or {})


def _environment(container: Value) -> Iterator[str]:
    names = [str(v["name"]) for v in container.get("env", ())]
    yield from (f"`{n}` is no name of a variable" for n in names if not _ENV.fullmatch(n))
    yield from (f"variable `{n}` stands there twice" for n in sorted({n for n in names if names.count(n) > 1}))
    for variable in container.get("env", ()):
        if not isinstance(variable.get("value", ""), str):
            yield f"variable `{variable['name']}` is not text"


def _ports(container: Value) -> Iterator[str]:
    ports = container.get("ports", ())
    names = [str(p["name"]) for p in ports if "name" in p]
    yield from (f"`{n}` is no name of a port" for n in names if not _PORT_NAME.fullmatch(n))
    if len(set(names)) < len(names):
        yield "two of its ports have one name"
    numbers = [n for p in ports for n in (p.get("containerPort"), p.get("hostPort", 1))]
    yield from (f"`{n}` is no port" for n in numbers if not is_port(n))
    for key in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = (container.get(key) or {}).get("httpGet")
        if asked and asked["port"] not in names and not is_port(asked["port"]):
            yield f"its {key} asks at port `{asked['port']}`, which it does not have"


def is_port(number: Any) -> bool:
    """Whether it is a number of a port."""
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 65535


def _mounts(container: Value, volumes: frozenset[str]) -> Iterator[str]:
    mounts = container.get("volumeMounts", ())
    yield from (f"it mounts `{m['name']}`, which is no volume of its pod" for m in mounts if m["name"] not in volumes)
    places = [str(m["mountPath"]) for m in mounts]
    yield from (f"`{p}` is mounted twice" for p in sorted({p for p in places if places.count(p) > 1}))
    yield from (f"`{p}` is no place for a mount" for p in places if not p.startswith("/") or ":" in p)


def _resources(resources: Value) -> Iterator[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, amount in [*requests.items(), *limits.items()]:
        yield from quantity(amount)
        if "/" in name and not str(amount).isdigit():
            yield f"`{name}` is handed out in whole numbers, not as `{amount}`"
    for name in {*requests, *limits}:
        if "/" in name and requests.get(name) != limits.get(name):
            yield f"what it asks for of `{name}` is not what it may have"


def quantity(amount: Any) -> Iterator[str]:
    """Yield what is wrong with a quantity. The server writes some in another way, and then sees a conflict with it."""
    match = _QUANTITY.fullmatch(amount) if isinstance(amount, str) else None
    if match is None:
        yield f"`{amount}` is no quantity"
    elif (canonical := _canonical(Decimal(match["number"]), match["unit"] or "")) != amount:
        yield f"the server writes the quantity `{amount}` as `{canonical}`"


def _canonical(number: Decimal, unit: str) -> str:
    """Return a quantity with the largest unit of its kind that leaves a whole number."""
    if not number:
        return "0"
    if unit in _BINARY and number * 1024 ** _BINARY[unit] >= 1024:
        whole, power = number * 1024 ** _BINARY[unit], 0
        while whole and whole % 1024 == 0 and power < 6:
            whole, power = whole / 1024, power + 1
        return f"{whole:f}".removesuffix(".0") + ("", *_BINARY)[power]
    factor = Decimal(1024) ** _BINARY[unit] if unit in _BINARY else Decimal(1000) ** _DECIMAL[unit]
    thousandths = number * factor * 1000
    power = -1
    while thousandths and thousandths % 1000 == 0 and power < 6:
        thousandths, power = thousandths / 1000, power + 1
    return f"{thousandths.normalize():f}" + {p: u for u, p in _DECIMAL.items()}[power]


def _config_map(value: Value) -> Iterator[str]:
    entries = {**(value.get("data") or {}), **(value.get("binaryData") or {})}
    yield from (f"`{key}` is no key of a ConfigMap" for key in entries if not _KEY.fullmatch(key))
    size = sum(len(key) + len(str(text).encode()) for key, text in entries.items())
    if size > _LIMIT:
        yield f"it holds {size} bytes, and a ConfigMap holds 1 MiB at most"


def _secret(value: Value) -> Iterator[str]:
    if value.get("data") or value.get("stringData"):
        yield "it holds values, and values belong into no rendered file"


def _service(value: Value) -> Iterator[str]:
    ports = value["spec"].get("ports", ())
    names = [str(p.get("name", "")) for p in ports]
    if len(set(names)) < len(names):
        yield "two of its ports have one name"
    yield from (f"`{p['port']}` is no port" for p in ports if not is_port(p["port"]))


def _claim(value: Value) -> Iterator[str]:
    yield from quantity(value["spec"]["resources"]["requests"]["storage"])


def _job(value: Value) -> Iterator[str]:
    if value["spec"]["template"]["spec"].get("restartPolicy") not in {"OnFailure", "Never"}:
        yield "the pods of a Job need `restartPolicy: OnFailure` or `Never`"


def _ingress(value: Value) -> Iterator[str]:
    for rule in value["spec"].get("rules", ()):
        if not _SUBDOMAIN.fullmatch(str(rule.get("host", ""))):
            yield f"`{rule.get('host')}` is no host name"


_RULES: Final[Mapping[str, Callable[[Value], Iterator[str]]]] = {
    "ConfigMap": _config_map,
    "Ingress": _ingress,
    "Job": _job,
    "PersistentVolumeClaim": _claim,
    "Secret": _secret,
    "Service": _service,
}
