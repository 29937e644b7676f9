"""labctl's own objects in a lab's namespace: the ledger of what it applied, the log of applies, the key of digests.

A ConfigMap ``labctl-<lab>`` holds the ledger (``record.json``) and the last applies (``audit.jsonl``, bounded), a
Secret ``labctl-<lab>-key`` the random key of the digests of secret values. Neither carries the lab's label.
"""

from __future__ import annotations

import base64
import json
import secrets as random
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, Final

from labctl.artefact import Cluster
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError
from labctl.kube.api import APPLY, Api, ApiError, segment
from labctl.kube.fields import MANAGER
from labctl.kube.prepare import owner
from labctl.plan.observed import Manifest
from labctl.plan.wire import WireError, manifest_from_json, manifest_to_json
from labctl.values import dataclass

RECORD: Final = "record.json"
AUDIT: Final = "audit.jsonl"
KEY: Final = "key"
NOTE: Final = "note"
KEPT: Final = 50
"""Applies that the log remembers."""
LONGEST: Final = 2000
"""Characters of one of its lines."""
OWN: Final = {"app.kubernetes.io/managed-by": "labctl", "app.kubernetes.io/component": "labctl-state"}


@dataclass(frozen=True, slots=True)
class Record:
    """What labctl noted in the cluster. ``present`` is False when there is nothing yet."""

    manifest: Manifest = Manifest()
    audit: tuple[str, ...] = ()
    key: bytes | None = field(default=None)
    present: bool = False


def base(cluster: Cluster) -> str:
    """Return the name of labctl's own objects."""
    return f"labctl-{owner(cluster)}"


def read(api: Api, cluster: Cluster) -> Record:
    """Return labctl's notes. HostError (LAB102) when they are damaged."""
    note = api.get(_path(cluster, "configmaps", base(cluster)))
    secret = api.get(_path(cluster, "secrets", f"{base(cluster)}-key"))
    data = (note or {}).get("data") or {}
    key = base64.b64decode(((secret or {}).get("data") or {}).get(KEY) or "") or None
    try:
        manifest = manifest_from_json(data[RECORD]) if RECORD in data else Manifest()
    except WireError as error:
        raise HostError(_damaged(cluster, error)) from error
    audit = tuple(line for line in str(data.get(AUDIT) or "").splitlines() if line)
    return Record(manifest, audit, key, note is not None)


def write(api: Api, cluster: Cluster, manifest: Manifest, audit: tuple[str, ...]) -> None:
    """Keep the ledger and the log."""
    text = "".join(f"{line[:LONGEST]}\n" for line in audit[-KEPT:])
    _apply(api, cluster, "ConfigMap", base(cluster), {"data": {RECORD: manifest_to_json(manifest), AUDIT: text}})


def ensure_key(api: Api, cluster: Cluster, known: bytes | None) -> bytes:
    """Return the key of secret digests, making one when there is none."""
    if known is not None:
        return known
    name = f"{base(cluster)}-key"
    key = random.token_hex(32).encode()
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": OWN},
        "data": {KEY: base64.b64encode(key).decode()},
    }
    try:
        api.call("POST", _path(cluster, "secrets"), {"fieldManager": MANAGER}, body)
    except ApiError as error:
        if error.code != 409:
            raise
        return read(api, cluster).key or key
    return key


def remove(api: Api, cluster: Cluster) -> None:
    """Remove labctl's own objects; one that is not there is fine."""
    name = base(cluster)
    for plural, ending in (("configmaps", ""), ("configmaps", "-note"), ("secrets", "-key")):
        _delete(api, _path(cluster, plural, f"{name}{ending}"))


def note(api: Api, cluster: Cluster) -> bytes | None:
    """Return the note for the next command."""
    found = api.get(_path(cluster, "configmaps", f"{base(cluster)}-note"))
    text = ((found or {}).get("data") or {}).get(NOTE)
    return None if text is None else str(text).encode()


def leave_note(api: Api, cluster: Cluster, content: bytes | None) -> None:
    """Keep a note for the next command, or (None) none any more."""
    name = f"{base(cluster)}-note"
    if content is not None:
        _apply(api, cluster, "ConfigMap", name, {"data": {NOTE: content.decode()}})
        return
    _delete(api, _path(cluster, "configmaps", name))


def line(entry: Mapping[str, object]) -> str:
    """Return a line of the log, with the time."""
    return json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **entry}, ensure_ascii=False)


def _path(cluster: Cluster, plural: str, name: str | None = None) -> str:
    folder = f"/api/v1/namespaces/{segment(cluster.namespace)}/{plural}"
    return folder if name is None else f"{folder}/{segment(name)}"


def _delete(api: Api, path: str) -> None:
    try:
        api.call("DELETE", path)
    except ApiError as error:
        if error.code != 404:
            raise


def _apply(api: Api, cluster: Cluster, kind: str, name: str, content: Mapping[str, Any]) -> None:
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": OWN}, **content}
    path = _path(cluster, f"{kind.lower()}s", name)
    api.call("PATCH", path, {"fieldManager": MANAGER, "force": "true"}, body, APPLY)


def _damaged(cluster: Cluster, error: WireError) -> Diagnostic:
    return Diagnostic(
        code="LAB102",
        summary=f"labctl's notes in namespace `{cluster.namespace}` cannot be read: {error}",
        detail=f"ConfigMap {base(cluster)}, {RECORD}",
        hint="delete that ConfigMap: what carries labctl's label is still known as its own",
    )
