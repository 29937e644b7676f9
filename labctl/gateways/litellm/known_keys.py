"""Which keys LiteLLM's config.yaml knows, from ``labctl/data/litellm.toml``: it ignores all others without a word."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_TABLE: Final = tomllib.loads(files("labctl").joinpath("data", "litellm.toml").read_text(encoding="utf-8"))["keys"]

_CHECKED: Final = ("router_settings", "general_settings")

SECTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {name: frozenset() for name in _TABLE["sections"]} | {name: frozenset(_TABLE[name]) for name in _CHECKED}
)
"""Section → its keys; empty where LiteLLM takes any (``litellm_settings`` are attributes of the library)."""


def section_of(key: str) -> str | None:
    """Return the section that knows a key, None when none or more than one does."""
    homes = [name for name, keys in SECTIONS.items() if key in keys]
    return homes[0] if len(homes) == 1 else None
