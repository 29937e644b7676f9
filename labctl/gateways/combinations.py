"""Which children may be loaded together: exactly those sets that fit every card and the RAM, as small formulas.

Servers that take the same of every place that can run out, and that the same servers may run beside, are a *kind*: what
counts is how many of each kind are loaded, not which. Kinds that share no such place are decided apart, in clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from labctl.gateways import Children
from labctl.values import dataclass

MOST: Final = 500
"""Combinations that are written down per cluster; a file with more helps nobody."""
_STEPS: Final = 30_000
"""Counts that are looked at before the search is given up."""


class TooManyError(Exception):
    """There are more combinations than anybody wants to have in a file."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Servers that are interchangeable as far as memory goes.

    Attributes:
        members: their names; takes: place → bytes of one of them, for places that can run out.
        apart: its exclusive group and deployment, None for none.
    """

    members: tuple[str, ...]
    takes: Mapping[str, int]
    apart: tuple[str, str] | None

    def bars(self, other: Kind) -> bool:
        """Whether no two of both are loaded together."""
        return bool(self.apart and other.apart and self.apart[0] == other.apart[0] and self.apart[1] != other.apart[1])


@dataclass(frozen=True, slots=True)
class Combination:
    """A largest set: of each kind so many, whichever; and with it every smaller one."""

    counts: tuple[tuple[Kind, int], ...]


def scarce(children: Children) -> tuple[str, ...]:
    """Return the places that cannot take all children at once; the others decide nothing."""
    wanted: dict[str, int] = {}
    for takes in children.takes.values():
        for place, size in takes.items():
            wanted[place] = wanted.get(place, 0) + size
    return tuple(place for place in sorted(wanted) if wanted[place] > children.room[place])


def clusters(children: Children, pinned: frozenset[str] = frozenset()) -> list[list[Kind]]:
    """Return the kinds, those together that share a scarce place or an exclusive group; pinned ones left out."""
    found: list[tuple[set[str], list[Kind]]] = []
    for kind in _kinds(children, pinned):
        marks = {f"place {place}" for place in kind.takes} | ({f"group {kind.apart[0]}"} if kind.apart else set())
        near = [cluster for cluster in found if cluster[0] & marks]
        found = [cluster for cluster in found if not cluster[0] & marks]
        merged = [k for _, kinds in near for k in kinds]
        found.append((marks.union(*(m for m, _ in near)), [*merged, kind]))
    return [sorted(kinds, key=lambda k: k.members) for _, kinds in sorted(found, key=lambda c: c[1][0].members)]


def _kinds(children: Children, pinned: frozenset[str]) -> Iterator[Kind]:
    places = scarce(children)
    members: dict[tuple[tuple[tuple[str, int], ...], tuple[str, str] | None], list[str]] = {}
    for name in sorted(set(children.servers) - pinned):
        takes = tuple((p, size) for p in places if (size := children.takes[name].get(p, 0)))
        members.setdefault((takes, children.apart.get(name)), []).append(name)
    for (takes, apart), names in members.items():
        yield Kind(tuple(names), dict(takes), apart)


def room_beside(children: Children, pinned: frozenset[str]) -> dict[str, int]:
    """Return the room that pinned servers leave, by place; negative where they do not fit together."""
    return {p: room - sum(children.takes[n].get(p, 0) for n in pinned) for p, room in children.room.items()}


def largest(kinds: Sequence[Kind], room: Mapping[str, int], most: int = MOST) -> list[Combination]:
    """Return every largest combination of one cluster. TooManyError when there are more than ``most``."""
    search = _Search(kinds, room, most)
    search.count(0, [])
    return search.found


class _Search:
    """Chooses a number of each kind in turn, the highest first; leaves out what something could always be added to."""

    def __init__(self, kinds: Sequence[Kind], room: Mapping[str, int], most: int) -> None:
        self.kinds = kinds
        self.room = room
        self.most = most
        self.steps = 0
        self.found: list[Combination] = []

    def count(self, index: int, chosen: list[int]) -> None:
        self.steps += 1
        if self.steps > _STEPS:
            raise TooManyError
        if any(self._always_fits(i, chosen) for i in range(index)):
            return
        if index == len(self.kinds):
            self.found.append(Combination(tuple((k, n) for k, n in zip(self.kinds, chosen, strict=True) if n)))
            if len(self.found) > self.most:
                raise TooManyError
            return
        for number in range(len(self.kinds[index].members), -1, -1):
            if number == 0 or self._fits([*chosen, number]):
                self.count(index + 1, [*chosen, number])

    def _always_fits(self, index: int, chosen: list[int]) -> bool:
        """Whether one more of a kind fits even beside everything that is still to be decided."""
        if chosen[index] == len(self.kinds[index].members):
            return False
        everything = [*chosen, *(len(kind.members) for kind in self.kinds[len(chosen) :])]
        everything[index] += 1
        return self._fits(everything)

    def _fits(self, counts: Sequence[int]) -> bool:
        some = [(kind, n) for kind, n in zip(self.kinds, counts, strict=False) if n]
        if any(a.bars(b) for i, (a, _) in enumerate(some) for b, _ in some[:i]):
            return False
        places = {place for kind, _ in some for place in kind.takes}
        return all(sum(kind.takes.get(p, 0) * n for kind, n in some) <= self.room[p] for p in places)


def any_of(children: Children) -> int:
    """Return the greatest number of children of which any may be loaded together: all that counting can promise."""
    names = sorted(children.servers)
    if any(Kind((), {}, children.apart.get(a)).bars(Kind((), {}, children.apart.get(b))) for a in names for b in names):
        return 1
    number = len(names)
    for place, room in children.room.items():
        sizes = sorted((children.takes[name].get(place, 0) for name in names), reverse=True)
        while sum(sizes[:number]) > room:
            number -= 1
    return number
