"""An object as it is sent: labctl's label and digest, a Secret's values, and what restarts their users. Pure.

Nothing of this is in a rendered file. The digests of secret values are keyed with a key that is kept in the cluster, so
that an annotation says nothing about a value. A pod template carries the digest of exactly the values that its pods
use: a rotated value restarts those pods and no other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final

from labctl.artefact import Cluster, Object
from labctl.secrets import Secrets
from labctl.values import dataclass

LAB: Final = "labctl.dev/lab"
"""Label: the lab that owns the object. What carries it and is no longer wanted is pruned."""
APPLIED: Final = "labctl.dev/applied"
"""Annotation: digest of the rendered object when it was applied last."""
SECRETS: Final = "labctl.dev/secrets"
"""Annotation: keyed digest of a Secret's values, or of those that a pod template's pods use."""

Place = tuple[str | None, str]
"""(namespace, name)"""


def owner(cluster: Cluster) -> str:
    """Return what labctl's label says on everything that it owns in a cluster."""
    return cluster.lab or cluster.namespace


@dataclass(frozen=True, slots=True)
class Values:
    """The secret values of a tree's Secrets, as far as they are known.

    Attributes:
        secrets: None when no values are at hand.
        key: that of the keyed digests, None when the cluster has none yet.
        items: the tree's Secrets.
    """

    secrets: Secrets | None = None
    key: bytes | None = None
    items: Mapping[Place, Object] = field(default_factory=dict)

    @classmethod
    def of(cls, objects: Iterable[Object], secrets: Secrets | None, key: bytes | None) -> Values:
        """Return the values of those objects that have any."""
        return cls(secrets, key, {place(o.value): o for o in objects if o.entries})

    def texts(self, item: Object) -> Mapping[str, str] | None:
        """Return a Secret's values, None when they are not known."""
        if self.secrets is None or self.secrets.missing(n for t in item.entries.values() for n in t.names):
            return None
        return {key: self.secrets.join(text) for key, text in item.entries.items()}

    def digest(self, item: Object) -> str | None:
        """Return the keyed digest of a Secret's values, None when it cannot be known."""
        texts = self.texts(item)
        return None if texts is None or self.key is None else digest(self.key, texts)

    def used(self, uses: Iterable[tuple[Place, str | None]]) -> str | None:
        """Return the keyed digest of some values (of one entry, or of all), "" for none, None when not known."""
        parts: dict[str, str] = {}
        for where, entry in uses:
            item = self.items.get(where)
            if item is None:
                continue
            texts = self.texts(item)
            if texts is None:
                return None
            parts |= {f"{where[1]}/{k}": v for k, v in texts.items() if entry in {None, k}}
        if not parts:
            return ""
        return None if self.key is None else digest(self.key, parts)


def digest(key: bytes, texts: Mapping[str, str]) -> str:
    """Return the keyed digest of some values."""
    plain = json.dumps(dict(texts), sort_keys=True, ensure_ascii=False)
    return hmac.new(key, plain.encode(), hashlib.sha256).hexdigest()[:32]


def place(value: Mapping[str, Any]) -> Place:
    """Return where an object is."""
    return value["metadata"].get("namespace"), str(value["metadata"]["name"])


def sent(item: Object, cluster: Cluster, values: Values, live: Mapping[str, Any] | None, *, keep: bool) -> Any:
    """Return the object as it is applied.

    Args:
        item: the wanted object.
        cluster: where it goes.
        values: what is known of secret values; entries that are not known are left as they are.
        live: the object as it is there, None when it is not.
        keep: the number of replicas is not labctl's to say any more: somebody switches it on and off.
    """
    value: dict[str, Any] = _copy(item.value)
    meta = value["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), LAB: owner(cluster)}
    notes = {**(meta.get("annotations") or {}), APPLIED: item.digest}
    meta["annotations"] = notes
    if item.entries:
        value["data"] = {**(value.get("data") or {}), **_data(item, values, live)}
        known = values.digest(item) or _note(live)
        if known:
            notes[SECRETS] = known
    template = _template(value)
    if template is not None:
        _mark(value, template, values, live)
    for claim in (value.get("spec") or {}).get("volumeClaimTemplates") or ():
        claim["metadata"]["labels"] = {**(claim["metadata"].get("labels") or {}), LAB: owner(cluster)}
    if keep and live is not None and "replicas" in (live.get("spec") or {}):
        value["spec"]["replicas"] = live["spec"]["replicas"]
    return value


def uses(template: Mapping[str, Any], namespace: str | None) -> Iterator[tuple[Place, str | None]]:
    """Yield the Secrets that a pod template uses: all of a Secret (None) or one entry."""
    spec = template.get("spec") or {}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for source in container.get("envFrom") or ():
            if "secretRef" in source:
                yield (namespace, str(source["secretRef"].get("name"))), None
        for variable in container.get("env") or ():
            ref = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if ref:
                yield (namespace, str(ref.get("name"))), str(ref.get("key"))
    for volume in spec.get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            secret = source.get("secret")
            if secret:
                yield (namespace, str(secret.get("secretName") or secret.get("name"))), None


def template_note(value: Mapping[str, Any] | None) -> str:
    """Return the digest of secret values that an object's pod template carries, "" for none."""
    template = _template(value) if value is not None else None
    return "" if template is None else str(((template.get("metadata") or {}).get("annotations") or {}).get(SECRETS, ""))


def decoded(live: Mapping[str, Any], entries: Iterable[str]) -> dict[str, str]:
    """Return the values of some entries of a Secret as it is there."""
    data = live.get("data") or {}
    return {k: base64.b64decode(data[k]).decode(errors="replace") for k in entries if k in data}


def _data(item: Object, values: Values, live: Mapping[str, Any] | None) -> dict[str, str]:
    texts = values.texts(item)
    if texts is not None:
        return {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    there = (live or {}).get("data") or {}
    return {key: there.get(key, "") for key in item.entries}


def _note(live: Mapping[str, Any] | None) -> str:
    return "" if live is None else str((live["metadata"].get("annotations") or {}).get(SECRETS, ""))


def _template(value: Mapping[str, Any]) -> Any:
    """Return the pod template of a workload, None of anything else."""
    spec = value.get("spec") or {}
    if value.get("kind") == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = spec.get("template") if isinstance(spec, Mapping) else None
    return template if isinstance(template, Mapping) and "spec" in template else None


def _mark(value: Mapping[str, Any], template: Any, values: Values, live: Mapping[str, Any] | None) -> None:
    known = values.used(uses(template, value["metadata"].get("namespace")))
    note = template_note(live) if known is None else known
    if note:
        meta = template.setdefault("metadata", {})
        meta["annotations"] = {**(meta.get("annotations") or {}), SECRETS: note}


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(v) for v in value]
    return value
