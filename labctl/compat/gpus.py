"""The card catalogue: names as people write them, and what each card is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache

from labctl.compat.tables import csv_rows
from labctl.compat.values import GpuFacts, Problem

_NOISE = re.compile(
    r"\((tm|r)\)|\b(nvidia|geforce|amd|ati|intel|corporation|radeon|instinct|quadro|tesla|graphics|gpu|generation|edition"
    r"|workstation|server|hbm[23]e?|sxm[2345]?|pcie)\b|[^a-z0-9+]"
)
_SERIES = ("rtx", "gtx", "rx", "arc")


def all_gpus() -> tuple[GpuFacts, ...]:
    """Return every card of the catalogue, in its order."""
    return tuple(_facts(number) for number in range(len(csv_rows("gpus.csv"))))


def find(name: str) -> GpuFacts | None:
    """Return the card of that name, however it is written, or None.

    Vendor words, case, spaces and punctuation do not matter, nor does the series of a card whose number says it all:
    ``NVIDIA GeForce RTX 5090``, ``rtx5090`` and ``5090`` are one card.
    """
    number = _index(_plain).get(_plain(name))
    if number is None:
        number = _loosely(_key(name))
    return None if number is None else _facts(number)


def nearest(name: str) -> tuple[str, ...]:
    """Return up to three names of cards that a misspelt one may have meant, best first."""
    index = _index(_key)
    close = get_close_matches(_key(name), index, n=6, cutoff=0.6)
    return tuple(dict.fromkeys(_facts(index[key]).name for key in close))[:3]


def unknown(name: str) -> Problem:
    """Return the problem of a card that the catalogue does not have."""
    meant = nearest(name)
    did_you_mean = f"write {_either(meant)}" if meant else "see docs/compatibility.md for the catalogue"
    return Problem(
        code="LAB075",
        key="model",
        summary=f"`{name}` is no card that labctl knows",
        hint=f"{did_you_mean}; a card can be added to the catalogue, see docs/compatibility.md",
    )


def _either(names: tuple[str, ...]) -> str:
    quoted = [f"`{n}`" for n in names]
    return " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def _key(name: str) -> str:
    return _NOISE.sub("", name.lower())


def _loosely(key: str) -> int | None:
    """Return the row of a name without vendor words, with its size added, or with its series left out."""
    index = _index(_key)
    number = index.get(key, _of_size(key))
    guesses = {index[s + key] for s in _SERIES if s + key in index}
    return guesses.pop() if number is None and len(guesses) == 1 else number


def _of_size(name: str) -> int | None:
    """Return the card when a name only adds the size that the card has anyway, as in ``RTX 3090 24 GB``."""
    sized = re.fullmatch(r"(.*\d.*?)g(?:i?b)?", name)
    stem = sized[1] if sized else ""
    for digits in range(1, min(4, len(stem))):
        number, size = _index(_key).get(stem[:-digits]), stem[-digits:]
        if number is not None and size.isdigit() and _is_size(_facts(number), int(size)):
            return number
    return None


def _is_size(gpu: GpuFacts, gib: int) -> bool:
    """Tell whether a card is sold as one of so many GiB: it reports up to an eighth less."""
    return gib * 900 <= gpu.memory_mib <= gib * 1024


@cache
def _index(spelling: Callable[[str], str]) -> Mapping[str, int]:
    """Return the rows' numbers by the names in one spelling; of two cards the first keeps the name."""
    index: dict[str, int] = {}
    for number, row in enumerate(csv_rows("gpus.csv")):
        for name in (row["name"], *row["aliases"].split("|")):
            index.setdefault(spelling(name), number)
    index.pop("", None)
    return index


@cache
def _facts(number: int) -> GpuFacts:
    row = csv_rows("gpus.csv")[number]
    return GpuFacts(
        vendor=row["vendor"],
        name=row["name"],
        aliases=tuple(row["aliases"].split("|")) if row["aliases"] else (),
        architecture=row["architecture"],
        capability=row["capability"] or None,
        gfx=row["gfx"] or None,
        memory_mib=int(row["memory_mib"]),
        memory_basis=row["memory_basis"],
        tdp_w=int(row["tdp_w"]) if row["tdp_w"] else None,
        unified=row["unified"] == "yes",
        tegra=row["tegra"] == "yes",
        certain=row["certain"] == "yes",
        source=row["source"],
    )
