"""Shell completion of names: read from the lab's text, without checking it and without asking a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer


def hosts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the hosts of the lab that begin so."""
    return _beginning(incomplete, _lab(ctx).get("hosts", {}))


def units(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the deployments, services and the gateway of the lab that begin so."""
    lab = _lab(ctx)
    gateway = ["gateway"] if lab.get("gateway") else []
    return _beginning(incomplete, [*_names(lab.get("deployments")), *_names(lab.get("services")), *gateway])


def groups(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the exclusive groups of the lab that begin so."""
    return _beginning(incomplete, _lab(ctx).get("groups", {}))


def members(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the members that begin so, of the group that was named."""
    group = _names_of(_lab(ctx).get("groups"), str(ctx.params.get("group", "")))
    return _beginning(incomplete, group.get("exclusive", ()))


def _names_of(groups: Any, name: str) -> Mapping[str, Any]:
    found = groups.get(name) if isinstance(groups, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _names(value: Any) -> Iterable[str]:
    return value if isinstance(value, Mapping) else ()


def _beginning(incomplete: str, names: Any) -> list[str]:
    return [str(name) for name in names or () if str(name).startswith(incomplete)]


def _lab(ctx: typer.Context) -> Mapping[str, Any]:
    """Return the lab's text as plain values; nothing when it cannot be read: completion has no errors."""
    from labctl.document.read import read_document

    try:
        found = read_document(Path(ctx.params.get("lab") or "."))
    except Exception:
        return {}
    data = found.value.data if found.value is not None else None
    return data if isinstance(data, Mapping) else {}
