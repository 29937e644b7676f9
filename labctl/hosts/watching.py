"""Managers whose work takes long: they tell how far they are, and stop when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Ref
from labctl.values import dataclass


def _nothing(*_: str) -> None:
    """Tell nobody, stop for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who wants to know.

    Attributes:
        tell: takes the name of a unit and a line about it.
        check: raises ``Stopped`` once somebody wants it.
        point: the place to be killed in tests.
    """

    tell: Callable[[str, str], None] = _nothing
    check: Callable[[], None] = _nothing
    point: Callable[[], None] = _nothing

    def step(self) -> None:
        """Stand between two steps: the place to stop, and to be killed in tests."""
        self.check()
        self.point()


@runtime_checkable
class Foreseeing(Protocol):
    """A ``UnitManager`` that can tell beforehand what a start would do."""

    def foresee(self, refs: Sequence[Ref]) -> Iterable[Diagnostic]:
        """Return notes, of units that are not as wanted. Changes nothing."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A ``UnitManager`` that can be watched."""

    def attend(self, watch: Watch) -> None:
        """Tell this one from now on."""
        ...
