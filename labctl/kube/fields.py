"""What a field manager owns of an object, from the object's ``managedFields``. Pure.

What labctl owns is what it applied last. When that is exactly what it would apply now, applying changes nothing: no
question to the server is needed. And it is what has to be applied again to go back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

MANAGER: Final = "labctl"
Value = Mapping[str, Any]


def owned(live: Value, manager: str = MANAGER) -> Value | None:
    """Return the tree of fields that a manager applied, None when it never did."""
    for entry in _entries(live):
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return dict(entry.get("fieldsV1") or {})
    return None


def applied(live: Value, manager: str = MANAGER) -> dict[str, Any] | None:
    """Return the object as a manager applied it last, with the values that are there now; None when it never did."""
    fields = owned(live, manager)
    if fields is None:
        return None
    meta = live["metadata"]
    value: dict[str, Any] = {"apiVersion": live["apiVersion"], "kind": live["kind"], **_part(live, fields)}
    identity = {key: meta[key] for key in ("name", "namespace") if key in meta}
    value["metadata"] = {**value.get("metadata", {}), **identity}
    return value


def same(wanted: Any, there: Any) -> bool:
    """Whether two values are equal, whatever the order of their lists' mappings."""
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return wanted.keys() == there.keys() and all(same(v, there[k]) for k, v in wanted.items())
    if isinstance(wanted, list | tuple) and isinstance(there, list | tuple):
        if len(wanted) != len(there):
            return False
        if all(same(a, b) for a, b in zip(wanted, there, strict=True)):
            return True
        keyed = all(isinstance(v, Mapping) for v in (*wanted, *there))
        return keyed and _unordered(list(wanted), list(there))
    return type(wanted) is type(there) and bool(wanted == there)


def others(live: Value, manager: str = MANAGER, since: str = "") -> tuple[str, ...]:
    """Return who else has written the object's fields (not its status), sorted; ``since`` a time in RFC 3339."""
    names = {
        str(e.get("manager"))
        for e in _entries(live)
        if e.get("manager") != manager and not e.get("subresource") and str(e.get("time") or "") >= since
    }
    return tuple(sorted(names))


def applied_at(live: Value, manager: str = MANAGER) -> str:
    """Return when a manager applied the object last, as the server noted it; "" when it never did."""
    times = [str(e.get("time") or "") for e in _entries(live) if e.get("manager") == manager]
    return max(times, default="")


def _entries(live: Value) -> Iterable[Value]:
    return (live.get("metadata") or {}).get("managedFields") or ()


def _part(value: Any, fields: Value) -> Any:
    """Return the part of a value that a tree of fields names."""
    inside = {key: sub for key, sub in fields.items() if key != "."}
    if not inside:
        return value
    if isinstance(value, Mapping):
        return {k: _part(value[k], sub) for k, sub in _names(inside) if k in value}
    if isinstance(value, list):
        return list(_elements(value, inside))
    return value


def _names(fields: Value) -> Iterator[tuple[str, Value]]:
    return ((key[2:], sub) for key, sub in fields.items() if key.startswith("f:"))


def _elements(values: list[Any], fields: Value) -> Iterator[Any]:
    """Yield the elements of a list that the fields name by their keys, values or positions, in the list's order."""
    keys = [(json.loads(k[2:]), sub) for k, sub in fields.items() if k.startswith("k:")]
    plain = [json.loads(k[2:]) for k in fields if k.startswith("v:")]
    for index, value in enumerate(values):
        if isinstance(value, Mapping):
            for key, sub in keys:
                if all(_has(value, k, v) for k, v in key.items()):
                    yield _part(value, sub)
        elif value in plain or f"i:{index}" in fields:
            yield value


def _has(value: Value, key: str, wanted: Any) -> bool:
    return key in value and bool(value[key] == wanted)


def _unordered(wanted: list[Any], there: list[Any]) -> bool:
    left = list(there)
    for item in wanted:
        found = next((i for i, other in enumerate(left) if same(item, other)), None)
        if found is None:
            return False
        del left[found]
    return True
