"""The table of NixOS options that labctl may set, as a tree: ``data/nixos/*.csv``, each row with its source.

A path names attributes; ``<name>`` stands for any attribute of a set and ``*`` for any item of a list. ``since`` and
``until`` are the first and the last release that has the option, empty where every release does that labctl knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from labctl.compat import tables
from labctl.targets.nixos.options.types import OptionType, parse
from labctl.values import dataclass

TABLES: Final = ("nixos/services.csv", "nixos/machine.csv", "nixos/system.csv")
NAME: Final = "<name>"
ITEM: Final = "*"


@dataclass(frozen=True, slots=True)
class Option:
    """A row: the type, the default where labctl needs it, the releases, and what to do instead elsewhere."""

    path: tuple[str, ...]
    type: OptionType
    required: bool
    default: str
    since: str
    until: str
    remedy: str

    def exists_in(self, release: str) -> bool:
        """Whether a release such as ``26.05`` has it."""
        return self.since <= release and (not self.until or release <= self.until)


@dataclass(frozen=True, slots=True)
class Node:
    """A place in the tree: an option, a name before options, or both (a free set with some attributes known)."""

    option: Option | None
    inside: Mapping[str, Node]

    def child(self, name: str) -> Node | None:
        """Return the place of an attribute; that of any attribute where there is no own one."""
        return self.inside.get(name, self.inside.get(NAME))


@cache
def options() -> tuple[Option, ...]:
    """Return all rows, in the tables' order."""
    return tuple(
        Option(
            tuple(row["path"].split(".")),
            parse(row["type"]),
            bool(row["required"]),
            row["default"],
            row["since"],
            row["until"],
            row["remedy"],
        )
        for table in TABLES
        for row in tables.csv_rows(table)
    )


@cache
def tree() -> Node:
    """Return the root of the tree."""
    return _node([(option.path, option) for option in options()])


def _node(rows: list[tuple[tuple[str, ...], Option]]) -> Node:
    """Return the place with the rows whose paths are given from here on."""
    inside: dict[str, list[tuple[tuple[str, ...], Option]]] = {}
    for path, option in rows:
        if path:
            inside.setdefault(path[0], []).append((path[1:], option))
    here = next((option for path, option in rows if not path), None)
    return Node(here, {name: _node(below) for name, below in inside.items()})


def always_required() -> Iterator[Option]:
    """Yield the options without which no host can be built: those at a fixed place that nothing enables."""
    root = tree()
    for option in options():
        parent = root
        for name in option.path[:-1]:
            parent = parent.inside[name]
        if option.required and not {NAME, ITEM} & set(option.path) and "enable" not in parent.inside:
            yield option
