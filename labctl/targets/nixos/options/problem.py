"""A definition that NixOS would refuse, as data."""

from __future__ import annotations

from enum import StrEnum

from labctl.emit import nix_words
from labctl.values import dataclass


class Kind(StrEnum):
    """What is wrong with a definition."""

    UNKNOWN = "unknown"
    UNCHECKED = "unchecked"
    RELEASE = "release"
    TYPE = "type"
    MISSING = "missing"
    SECRET = "secret"  # noqa: S105 - a word
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Problem:
    """The option by its attributes (items of lists by their number), what is wrong, and what to do about it."""

    kind: Kind
    path: tuple[str, ...]
    message: str
    remedy: str

    @staticmethod
    def name(path: tuple[str, ...]) -> str:
        """Return a path as Nix writes it, ``virtualisation.oci-containers.containers."a b".image``."""
        return ".".join(part if part.isdigit() else nix_words.name(part) for part in path)
