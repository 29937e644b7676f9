"""The JSON form of plans and manifests. Versioned; what is derived is written for readers and ignored when read."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from labctl.plan.model import FORMAT_VERSION, Change, Plan
from labctl.plan.observed import Manifest

MANIFEST_VERSION: Final = 1


@cache
def _plans() -> TypeAdapter[Plan]:
    """Return pydantic's reader and writer of plans, made when the first one is read or written."""
    return TypeAdapter(Plan)


@cache
def _manifests() -> TypeAdapter[Manifest]:
    """Return pydantic's reader and writer of manifests."""
    return TypeAdapter(Manifest)


class WireError(ValueError):
    """A text is not a plan or manifest that this version can read. Its message is for humans."""


def plan_to_value(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values. Derived facts stand beside the stored ones."""
    value: dict[str, Any] = _plans().dump_python(plan, mode="json")
    changes = [_with_address(c, v) for c, v in zip(plan.changes, value.pop("changes"), strict=True)]
    facts = {"complete": plan.complete, "applyable": plan.applyable, "errored": plan.errored}
    counts = {str(a): n for a, n in plan.counts().items()}
    return {"format_version": value.pop("format_version"), **value, **facts, "counts": counts, "changes": changes}


def plan_to_json(plan: Plan) -> str:
    """Return a plan as indented JSON with a final line end."""
    return json.dumps(plan_to_value(plan), indent=2, ensure_ascii=False) + "\n"


def plan_from_json(text: str | bytes) -> Plan:
    """Read a plan; WireError when it is none, or of a newer format."""
    _check_version(text, "format_version", FORMAT_VERSION, "plan")
    try:
        return _plans().validate_json(text)
    except ValidationError as error:
        raise WireError(_first(error, "plan")) from error


def manifest_to_json(manifest: Manifest) -> str:
    """Return a manifest as indented JSON."""
    value = {"version": MANIFEST_VERSION, **_manifests().dump_python(manifest, mode="json")}
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def manifest_from_json(text: str | bytes) -> Manifest:
    """Read a manifest; WireError when it is none, or of a newer format."""
    _check_version(text, "version", MANIFEST_VERSION, "manifest")
    try:
        return _manifests().validate_json(text)
    except ValidationError as error:
        raise WireError(_first(error, "manifest")) from error


def _check_version(text: str | bytes, key: str, known: int, what: str) -> None:
    try:
        value = json.loads(text)
    except ValueError as error:
        message = f"not a {what}: {error}"
        raise WireError(message) from error
    version = value.get(key) if isinstance(value, dict) else None
    if not isinstance(version, int):
        message = f"not a {what}: it has no `{key}`"
        raise WireError(message)
    if version > known:
        message = f"{what} of format {version}; this labctl reads up to {known}"
        raise WireError(message)


def _first(error: ValidationError, what: str) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"not a {what}: {where}: {first['msg']}"


def _with_address(change: Change, value: dict[str, Any]) -> dict[str, Any]:
    kept = {key: item for key, item in value.items() if item not in (None, [])}
    return {"address": change.address, **kept, "drift": change.is_drift}
