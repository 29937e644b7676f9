"""Option values: put together, taken apart, and made ready for Nix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

from labctl.emit import nix, refuse

_PART: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."]+)')


def nested(path: str, value: nix.Value) -> dict[str, nix.Value]:
    """Return ``a.b."c.d"`` and its value as nested mappings. EmitError for a path that is none."""
    parts = [quoted or plain for quoted, plain in _PART.findall(path)]
    if not parts or not all(parts):
        refuse(f"the option `{path}`", "it is not names with dots between them")
    for part in reversed(parts):
        value = {part: value}
    return cast("dict[str, nix.Value]", value)


def spread(options: Mapping[str, object]) -> dict[str, nix.Value]:
    """Return options as lab.yaml writes them, dots in keys allowed, as nested mappings."""
    found: dict[str, nix.Value] = {}
    for path, value in options.items():
        inner = spread(value) if isinstance(value, Mapping) else cast("nix.Value", value)
        found = merge(found, nested(str(path), inner))
    return found


def merge(base: Mapping[str, nix.Value], over: Mapping[str, nix.Value]) -> dict[str, nix.Value]:
    """Return both: mappings merge, lists and scripts are joined as NixOS joins them, of anything else ``over`` wins."""
    return _laid(base, over, joined=True)


def override(base: Mapping[str, nix.Value], over: Mapping[str, nix.Value]) -> dict[str, nix.Value]:
    """Return ``base`` with ``over`` laid over it: mappings merge, all else replaces."""
    return _laid(base, over, joined=False)


def _laid(base: Mapping[str, nix.Value], over: Mapping[str, nix.Value], *, joined: bool) -> dict[str, nix.Value]:
    merged: dict[str, nix.Value] = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _laid(old, value, joined=joined)
        elif joined and key == "preStart" and isinstance(old, str) and isinstance(value, str):
            merged[key] = old + value
        elif joined and isinstance(old, list | tuple) and isinstance(value, list | tuple):
            merged[key] = [*old, *(item for item in value if item not in old)]
        else:
            merged[key] = value
    return merged


def at(options: Mapping[str, nix.Value], *keys: str) -> nix.Value:
    """Return the definition at a place, None where there is none."""
    value: nix.Value = options
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def all_of(parts: Iterable[Mapping[str, nix.Value]]) -> dict[str, nix.Value]:
    """Return many definitions as one."""
    found: dict[str, nix.Value] = {}
    for part in parts:
        found = merge(found, part)
    return found


def enabled_first(options: Mapping[str, nix.Value]) -> dict[str, nix.Value]:
    """Return options as one would write them: ``enable`` before everything else of a set."""
    found: dict[str, nix.Value] = {}
    for key, value in options.items():
        found[key] = enabled_first(value) if isinstance(value, Mapping) else value
    return {"enable": found.pop("enable"), **found} if "enable" in found else found


def given(values: Mapping[str, nix.Value]) -> dict[str, nix.Value]:
    """Return what has a value: None and empty lists and mappings are left out."""
    return {key: value for key, value in values.items() if value is not None and value not in ((), [], {})}


def arguments(value: nix.Value) -> tuple[str, ...]:
    """Return the arguments that a module with this body needs: of ``config``, ``lib``, ``pkgs``, ``utils``."""
    used = set(_used(value))
    return tuple(name for name in ("config", "lib", "pkgs", "utils") if name in used)


def _used(value: nix.Value) -> Iterator[str]:
    match value:
        case nix.Ref():
            yield value.path.partition(".")[0]
        case nix.Call():
            yield value.function.partition(".")[0]
            yield from _used(value.arguments)
        case nix.Text():
            yield from _used(value.parts)
        case nix.Lambda():
            yield from _used(value.body)
        case nix.Noted():
            yield from _used(value.value)
        case Mapping():
            yield from _used(tuple(value.values()))
        case list() | tuple():
            yield from (name for item in value for name in _used(item))
