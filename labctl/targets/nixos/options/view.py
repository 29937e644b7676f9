"""A host's definitions, looked at by option."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.targets.nixos.options.types import definitions
from labctl.values import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """Definitions with comments, priorities and conditions off; of several parts of a merge the last one counts."""

    whole: object

    def at(self, *path: str) -> object:
        """Return the definition at a path, None where there is none."""
        here = _last(self.whole)
        for name in path:
            if not isinstance(here, Mapping):
                return None
            here = _last(here.get(name))
        return here

    def has(self, *path: str) -> bool:
        """Whether something other than null is defined at a path."""
        return self.at(*path) is not None

    def get(self, option: str) -> object:
        """Return the definition of an option by its path with dots."""
        return self.at(*option.split("."))

    def true(self, option: str) -> bool:
        """Whether an option is set to true."""
        return self.get(option) is True

    def items(self, option: str) -> list[object]:
        """Return the items of a list, none where it is not there."""
        found = self.get(option)
        return list(found) if isinstance(found, list | tuple) else []

    def names(self, option: str) -> list[str]:
        """Return the attributes of a set, none where it is not there."""
        found = self.get(option)
        return list(found) if isinstance(found, Mapping) else []


def _last(value: object) -> object:
    found = None
    for found in definitions(value):  # noqa: B007 - the last one is what it is for
        pass
    return found
