"""Quantities: sizes, durations, powers and rates as text with a unit, and as plain numbers inside.

``24 GiB`` and ``24 GB`` are different and both understood. Sizes are whole bytes, durations whole seconds, powers whole
watts, rates whole events per minute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from labctl.values import dataclass

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

_NUMBER = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([^\s0-9.].*?)?\s*")


class QuantityError(ValueError):
    """The text is not a quantity of the wanted kind; ``str(error)`` says what would be."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of quantity: its units and how it is spelt.

    Attributes:
        name: e.g. ``size``.
        units: unit → multiple of the base unit.
        folded: units are compared without regard to case.
        example: a valid value, for error messages.
    """

    name: str
    units: Mapping[str, Fraction]
    folded: bool
    example: str

    def parse(self, text: str) -> int:
        """Return the value in the base unit; QuantityError when the unit is unknown or missing, or it is not whole."""
        match = _NUMBER.fullmatch(text)
        if match is None:
            message = f"`{text}` is not a {self.name}; write for example `{self.example}`"
            raise QuantityError(message)
        number, unit = match.groups()
        if unit is None:
            message = f"`{text}` has no unit; write for example `{self.example}`"
            raise QuantityError(message)
        return self._whole(text, Fraction(number.replace("_", "")) * self._factor(text, unit))

    def _factor(self, text: str, unit: str) -> Fraction:
        factor = self.units.get(unit)
        if factor is None and self.folded:
            factor = {u.lower(): f for u, f in self.units.items()}.get(unit.lower())
        if factor is None:
            known = ", ".join(f"`{u}`" for u in self.units)
            message = f"`{unit}` in `{text}` is not a unit of {self.name}; known units are {known}"
            raise QuantityError(message)
        return factor

    def _whole(self, text: str, value: Fraction) -> int:
        if value.denominator != 1:
            message = f"`{text}` is not a whole number of {next(iter(self.units))}"
            raise QuantityError(message)
        return int(value)


def _units(**units: float) -> Mapping[str, Fraction]:
    return MappingProxyType({name: Fraction(factor) for name, factor in units.items()})


SIZE: Final = Kind(
    "size",
    _units(
        B=1, KiB=KIB, MiB=MIB, GiB=GIB, TiB=GIB * 1024, kB=1000, MB=1000**2, GB=1000**3, TB=1000**4,
        Ki=KIB, Mi=MIB, Gi=GIB, Ti=GIB * 1024,
    ),
    folded=False,
    example="24 GiB",
)  # fmt: skip
DURATION: Final = Kind(
    "duration", _units(s=1, min=60, h=3600, d=86400, m=60, sec=1, hours=3600, days=86400), folded=True, example="60 s"
)
POWER: Final = Kind("power", _units(W=1, kW=1000), folded=True, example="90 W")
RATE: Final = Kind("rate", _units(**{"rpm": 1, "/min": 1, "per minute": 1}), folded=True, example="45 rpm")

_SIZE_STEPS: Final = (("TiB", GIB * 1024), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))


def format_size(value: int, digits: int = 1) -> str:
    """Spell bytes for people: ``5.3 GiB``, ``768 MiB``, ``0 B``; exact multiples have no fraction."""
    for unit, factor in _SIZE_STEPS:
        if abs(value) >= factor:
            return f"{value // factor} {unit}" if value % factor == 0 else f"{value / factor:.{digits}f} {unit}"
    return f"{value} B"


def format_duration(seconds: int) -> str:
    """Spell seconds for people: ``90 s``, ``5 min``, ``2 h``; only whole units."""
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % factor == 0:
            return f"{seconds // factor} {unit}"
    return f"{seconds} s"
