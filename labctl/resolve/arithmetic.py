"""Sums as people check them: lines in whole MiB that add up to the last digit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl.quantity import MIB
from labctl.resolve.ledger import Entry, GpuAccount, HostAccount, HostEntry, at_worst
from labctl.vram.footprint import DeviceBytes


def whole(size: int) -> int:
    """Return bytes as MiB, rounded up: what is taken is never shown as less."""
    return -(-size // MIB)


def apportion(sizes: Sequence[int], total: int) -> list[int]:
    """Return whole MiB for each size in bytes, as near to it as possible, that add up to ``total`` MiB."""
    shares = [size // MIB for size in sizes]
    by_rest = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] % MIB), i))
    for i in by_rest[: max(0, total - sum(shares))]:
        shares[i] += 1
    return shares


def card_sum(account: GpuAccount) -> str:
    """Return a card's ledger as lines; the overrun is the last number."""
    worst = at_worst(account.entries)
    used = whole(account.used)
    shown = dict(zip((e.server for e in worst), apportion([e.total for e in worst], used), strict=True))
    rows = [_row(e, shown[e.server], parts_sum(e, shown[e.server])) for e in worst]
    rows += [
        (" ", e.server, whole(e.total), f"not counted: it takes turns in `{e.group}`")
        for e in account.entries
        if e.server not in shown
    ]
    reserve = whole(account.gpu.reserve)
    room = account.gpu.memory // MIB - reserve
    note = f"{room + reserve:,} - {reserve:,} in reserve" if reserve else ""
    return "\n".join(_lines([*rows, *_balance(used, "the card", room, note)]))


def host_sum(account: HostAccount) -> str:
    """Return a host's RAM as lines; the overrun is the last number."""
    worst = at_worst(account.entries)
    used = whole(account.used)
    shown = dict(zip((e.server for e in worst), apportion([e.total for e in worst], used), strict=True))
    rows = [_row(e, shown[e.server], "its limit" if e.limited else "estimate") for e in worst]
    rows += [
        (" ", e.server, whole(e.total), f"not counted: it takes turns in `{e.group}`")
        for e in account.entries
        if e.server not in shown
    ]
    reserve = whole(account.reserve)
    room = (account.memory or 0) // MIB - reserve
    return "\n".join(_lines([*rows, *_balance(used, "the host", room, f"{room + reserve:,} - {reserve:,} in reserve")]))


_Row = tuple[str, str, int, str]
"""Sign, name, MiB, remark."""


def _row(entry: Entry | HostEntry, size: int, remark: str) -> _Row:
    return ("+", entry.server, size, remark)


def _balance(used: int, what: str, room: int, note: str) -> list[_Row]:
    return [(" ", "at worst", used, ""), ("-", what, room, note), (" ", "over by", used - room, "")]


def _lines(rows: Sequence[_Row]) -> Iterator[str]:
    name = max(len(row[1]) for row in rows)
    digits = max(len(f"{row[2]:,}") for row in rows)
    for i, (sign, who, size, remark) in enumerate(rows):
        first = " " if i == 0 else sign
        yield f"{first} {who:<{name}}  {size:>{digits},} MiB  {remark}".rstrip()


def named_parts(device: DeviceBytes, overhead: int = 0) -> tuple[tuple[str, int], ...]:
    """Return what a server's bytes on a card are made of, parts of no size left out."""
    named = (
        ("weights", device.weights),
        ("context", device.context),
        ("compute", device.compute),
        ("other", device.other),
        ("process", overhead),
    )
    return tuple((name, size) for name, size in named if size)


def parts_sum(entry: Entry, total: int) -> str:
    """Return an entry's parts in MiB as a sum that comes to ``total``."""
    if entry.declared:
        return "declared"
    parts = named_parts(entry.bytes, entry.overhead)
    shares = apportion([size for _, size in parts], total)
    return " + ".join(f"{name} {share:,}" for (name, _), share in zip(parts, shares, strict=True))
