"""What does not fit together between objects: names that lead nowhere, selectors that select nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from labctl.artefact import Object
from labctl.targets.k3s.lint import Fault, Value, faults, pod_spec

Labels = Mapping[str, Any]


def all_faults(items: Iterable[Object]) -> tuple[Fault, ...]:
    """Return everything that is wrong with a lab's objects, by path."""
    listed = tuple(items)
    found = [*faults(listed), *_Index(listed).faults()]
    return tuple(sorted(found, key=lambda f: (f.item.path, f.what)))


class _Index:
    """The objects of one rendering, by what others may say of them."""

    def __init__(self, items: Iterable[Object]) -> None:
        self.items = tuple(items)
        self.names = {_key(i.value): i for i in self.items}
        self.pods = [(i, _labels(i.value)) for i in self.items if pod_spec(i.value) is not None]
        self.by_label: dict[tuple[str, Any], list[tuple[Object, Labels]]] = {}
        for pod in self.pods:
            for label in pod[1].items():
                self.by_label.setdefault(label, []).append(pod)

    def faults(self) -> Iterator[Fault]:
        yield from self._doubles()
        for item in self.items:
            match item.value["kind"]:
                case "Service":
                    found = self._service(item.value)
                case "Ingress":
                    found = self._ingress(item.value)
                case "NetworkPolicy":
                    found = self._policy(item.value)
                case "PodDisruptionBudget":
                    found = self._selects(item.value["spec"]["selector"].get("matchLabels") or {}, "it")
                case _:
                    found = self._pod(item)
            yield from (Fault(item, what) for what in found)

    def _doubles(self) -> Iterator[Fault]:
        for item in self.items:
            if self.names[_key(item.value)] is not item:
                yield Fault(item, "another object has its kind and name")

    def _selected(self, labels: Labels) -> list[tuple[Object, Labels]]:
        """Return who has these labels: whoever has the rarest of them is looked at."""
        if not labels:
            return self.pods
        some = min((self.by_label.get(label, []) for label in labels.items()), key=len)
        return [pod for pod in some if labels.items() <= pod[1].items()]

    def _selects(self, labels: Labels, who: str) -> Iterator[str]:
        if labels and not self._selected(labels):
            yield f"{who} selects no pod of the lab"

    def _service(self, value: Value) -> Iterator[str]:
        selected = self._selected(value["spec"].get("selector") or {})
        if not selected:
            yield "it selects no pod of the lab"
        for port in value["spec"].get("ports", ()):
            wanted = port.get("targetPort", port["port"])
            lacking = [i for i, _ in selected if wanted not in _port_names(i.value)]
            yield from (f"it leads to port `{wanted}`, which `{_name(i.value)}` does not have" for i in lacking)

    def _ingress(self, value: Value) -> Iterator[str]:
        for rule in value["spec"].get("rules", ()):
            for path in rule["http"]["paths"]:
                to = path["backend"]["service"]
                service = self.names.get(("Service", value["metadata"]["namespace"], to["name"]))
                names = [p.get("name") for p in service.value["spec"]["ports"]] if service else []
                if to["port"].get("name") not in names:
                    yield f"it leads to `{to['name']}` at port `{to['port'].get('name')}`, which is not there"

    def _policy(self, value: Value) -> Iterator[str]:
        spec = value["spec"]
        yield from self._selects(spec["podSelector"].get("matchLabels") or {}, "it")
        for rule in spec.get("ingress", ()):
            for peer in rule.get("from", ()):
                labels = peer.get("podSelector", {}).get("matchLabels") or {}
                yield from self._selects(labels, f"a rule for {', '.join(str(v) for v in labels.values())}")

    def _pod(self, item: Object) -> Iterator[str]:
        spec = pod_spec(item.value)
        if spec is None:
            return
        space = item.value["metadata"].get("namespace")
        for kind, name in _wanted(spec):
            if (kind, space, name) not in self.names:
                yield f"it needs the {kind} `{name}`, which is not there"
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            for variable in container.get("env", ()):
                ref = (variable.get("valueFrom") or {}).get("secretKeyRef")
                secret = self.names.get(("Secret", space, ref["name"])) if ref else None
                if ref and (secret is None or ref["key"] not in secret.entries):
                    yield f"variable `{variable['name']}` is `{ref['key']}` of Secret `{ref['name']}`: not there"


def _wanted(spec: Value) -> Iterator[tuple[str, str]]:
    """Yield what a pod cannot start without."""
    yield "ServiceAccount", str(spec.get("serviceAccountName", "default"))
    for volume in spec.get("volumes", ()):
        if "configMap" in volume:
            yield "ConfigMap", str(volume["configMap"]["name"])
        if "secret" in volume:
            yield "Secret", str(volume["secret"]["secretName"])
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", str(volume["persistentVolumeClaim"]["claimName"])


def _key(value: Value) -> tuple[str, str | None, str]:
    return str(value["kind"]), value["metadata"].get("namespace"), str(value["metadata"]["name"])


def _name(value: Value) -> str:
    return f"{value['kind']}/{value['metadata']['name']}"


def _labels(value: Value) -> Labels:
    return (value["spec"]["template"].get("metadata") or {}).get("labels") or {}


def _port_names(value: Value) -> set[Any]:
    spec = pod_spec(value) or {}
    return {
        n for c in spec.get("containers", ()) for p in c.get("ports", ()) for n in (p.get("name"), p["containerPort"])
    }
