"""How Kubernetes writes things: quantities, names, labels, texts with a dollar. And from a value to an ``Object``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from labctl.artefact import Object
from labctl.diagnostics import DocPath
from labctl.emit import yaml
from labctl.targets.k3s.settings import Settings
from labctl.workload import Container, SecretText, Workload

_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = ("", "k", "M", "G", "T", "P", "E")
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_KEY: Final = re.compile(r"[^-._a-zA-Z0-9]")
APP: Final = "app.kubernetes.io"


def memory(size: int) -> str:
    """Return bytes as the server itself writes them: with the largest unit that divides them, binary where one does."""
    return _largest(size, 1024, _BINARY) if size % 1024 == 0 else _largest(size, 1000, _DECIMAL)


def cores(number: float) -> str:
    """Return CPU cores as the server itself writes them: whole ones, else thousandths."""
    thousandths = max(1, round(number * 1000))
    whole = thousandths % 1000 == 0
    return _largest(thousandths // 1000, 1000, _DECIMAL) if whole else f"{thousandths}m"


def _largest(number: int, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while number and number % step == 0 and power < len(units) - 1:
        number, power = number // step, power + 1
    return f"{number}{units[power]}"


def expanded(text: str) -> str:
    """Return a text of a variable or an argument that Kubernetes' own ``$(NAME)`` leaves alone."""
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def short_hash(*values: Any) -> str:
    """Return eight characters that change with the values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def key(name: str) -> str:
    """Return a file's name as a key of a ConfigMap: a folder's slash becomes two underscores."""
    return _KEY.sub("-", name.replace("/", "__"))


def port_name(name: str, number: int) -> str:
    """Return a port's name as Kubernetes takes it: 15 characters, a letter among them."""
    good = len(name) <= 15 and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) and "--" not in name
    return name if good and re.search("[a-z]", name) else f"p{number}"


def selector(workload: Workload, site: Settings) -> dict[str, str]:
    """Return the labels by which a workload's pods are found; they never change."""
    return {f"{APP}/name": workload.name, f"{APP}/part-of": site.lab}


def labels(workload: Workload, site: Settings, form: Container | None = None) -> dict[str, str]:
    """Return the recommended labels (kubernetes.io/docs, "Recommended Labels")."""
    role = {"deployments": "model-server", "gateway": "gateway"}.get(str((workload.origin or ("",))[0]), "service")
    tag = form.image.partition("@")[0].rpartition("/")[2].partition(":")[2] if form else ""
    version = {f"{APP}/version": tag} if tag and _LABEL.fullmatch(tag) else {}
    return {**selector(workload, site), f"{APP}/component": role, **version, f"{APP}/managed-by": "labctl"}


def lab_labels(site: Settings, name: str) -> dict[str, str]:
    """Return the labels of what belongs to the lab as a whole."""
    return {f"{APP}/name": name, f"{APP}/part-of": site.lab, f"{APP}/managed-by": "labctl"}


def meta(site: Settings, name: str, marks: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """Return the metadata of an object in the lab's namespace."""
    return {"name": name, "namespace": site.namespace, "labels": dict(marks), **more}


def thing(
    site: Settings,
    folder: str,
    value: Mapping[str, Any],
    wave: int,
    origin: DocPath = (),
    *,
    entries: Mapping[str, SecretText] | None = None,
) -> Object:
    """Return a value as an artefact, at ``FOLDER/KIND-NAME.yaml``."""
    kind, name = str(value["kind"]), str(value["metadata"]["name"])
    header = {"header": f"values of {', '.join(entries)}: written when applied"} if entries else {}
    return Object(
        host=site.name,
        path=f"{folder}/{kind.lower()}-{name}.yaml",
        value=value,
        content=yaml.dump(value, **header).encode(),
        entries=entries or {},
        wave=wave,
        origin=origin,
    )
