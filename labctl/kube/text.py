"""An object as text for people: without what the server keeps for itself, secret values masked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from labctl.emit import yaml
from labctl.kube.prepare import APPLIED, SECRETS
from labctl.secrets import MASK

_SERVER: Final = frozenset(
    {"managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "deletionTimestamp"}
)
_HIDDEN: Final = frozenset(
    {APPLIED, SECRETS, "kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision"}
)
"""Annotations that say nothing to people, or say too much: the third holds a Secret's values."""


def shown(value: Mapping[str, Any]) -> str:
    """Return an object's text."""
    first = {key: value[key] for key in ("apiVersion", "kind", "metadata") if key in value}
    clean = _clean({**first, **{k: v for k, v in value.items() if k not in first and k != "status"}})
    if value.get("kind") == "Secret":
        for part in ("data", "stringData"):
            if part in clean:
                clean[part] = dict.fromkeys(clean[part] or {}, MASK)
    return yaml.dump(clean, header="")


def _clean(value: Any) -> Any:
    """Drop the server's part of every ``metadata``, and the annotations that are not for people."""
    if isinstance(value, Mapping):
        return {k: _metadata(v) if k == "metadata" and isinstance(v, Mapping) else _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


def _metadata(meta: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in meta.items() if k not in _SERVER}
    if "annotations" in kept:
        notes = {k: v for k, v in (kept["annotations"] or {}).items() if k not in _HIDDEN}
        kept = {k: v for k, v in kept.items() if k != "annotations"} | ({"annotations": notes} if notes else {})
    return kept
