"""The VRAM budget for people: a bar per card, a row per server, and sums that add up. Everything is in MiB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from labctl.quantity import MIB
from labctl.resolve.arithmetic import apportion, named_parts, whole
from labctl.resolve.ledger import Entry, GpuAccount, HostAccount, HostEntry, Ledger, at_worst
from labctl.values import dataclass

BAR: Final = 36
"""Cells of a bar; a whole line stays below 100 columns."""
SHADES: Final = "█▓▒░"
RESERVE, FREE = "-", "·"
NAME: Final = 32
"""Columns of a name; a longer one gets a line of its own."""
COLUMN: Final = 9
PARTS: Final = ("weights", "context", "compute", "other", "process")


def budget_text(ledger: Ledger) -> str:
    """Return the ledger for people: per host its cards, those that hold the same as one, and its RAM."""
    lines: list[str] = []
    for host in ledger.hosts:
        cards = [a for a in ledger.gpus if a.host == host.host]
        if cards or host.entries:
            lines += [host.host, *_cards(cards), *_ram(host), ""]
    lines += _legend(ledger)
    lines.append("Everything fits." if ledger.fits else "It does not fit: see the errors.")
    return "\n".join(lines)


def _legend(ledger: Ledger) -> Iterator[str]:
    if any(not e.exact and not e.declared for a in ledger.gpus for e in a.entries):
        yield "~  reckoned from the model's name: `labctl lock` reads its header and makes it exact"
    for group in sorted({e.group for a in ledger.gpus for e in a.entries if e.group}):
        yield f"({group})  take turns: the one that takes the most counts"
    if ledger.unknown:
        yield "?  nothing is known of the memory of " + ", ".join(ledger.unknown)


def _cards(accounts: Sequence[GpuAccount]) -> Iterator[str]:
    computed = [e for a in accounts for e in a.entries if not e.declared]
    parts = [p for p in PARTS if any(p in dict(named_parts(e.bytes, e.overhead)) for e in computed)]
    for _, alike in groupby(accounts, key=_holding):
        yield from _card(list(alike), parts)


def _holding(account: GpuAccount) -> tuple[object, ...]:
    """Return what makes two cards look the same."""
    gpu = account.gpu
    entries = tuple((e.deployment, e.bytes, e.overhead, e.group, e.exact) for e in account.entries)
    return (gpu.model, gpu.memory, gpu.reserve, entries)


def _card(alike: Sequence[GpuAccount], columns: Sequence[str]) -> Iterator[str]:
    first, gpu = alike[0], alike[0].gpu
    which = f"GPU {gpu.index}" if len(alike) == 1 else f"GPUs {gpu.index}-{alike[-1].gpu.index}"
    each = " each" if len(alike) > 1 else ""
    rows = _rows(first, one=len(alike) == 1)
    heads = "".join(f"{c:>{COLUMN}}" for c in ("total", *columns))
    title = f"  {which}  {gpu.model}"
    yield f"{title:<{6 + NAME}}{heads}" if rows else title
    used, reserve, memory = whole(first.used), whole(gpu.reserve), gpu.memory // MIB
    free = memory - used - reserve
    kept = f" + {reserve:,} reserved" if reserve else ""
    left = f"{free:,} free" if free >= 0 else f"OVER by {-free:,}"
    for row in rows:
        yield from row.lines(columns)
    yield f"    ▕{bar(first)}▏ {used:,}{kept} of {memory:,} MiB, {left}{each}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One server on a card."""

    shade: str
    name: str
    total: int
    parts: Mapping[str, int]
    declared: bool
    exact: bool

    def lines(self, columns: Sequence[str]) -> Iterator[str]:
        """Yield the row, its name on a line of its own when that is long."""
        name = self.name
        if len(name) > NAME:
            yield f"    {self.shade} {name}"
            name = ""
        cells = "".join(f"{self.parts[c]:>{COLUMN},}" if c in self.parts else " " * COLUMN for c in columns)
        remark = "  declared" if self.declared else cells
        mark = "" if self.exact or self.declared else " ~"
        yield f"    {self.shade if name else ' '} {name:<{NAME}}{self.total:>{COLUMN},}{remark.rstrip()}{mark}"


def _rows(account: GpuAccount, *, one: bool) -> list[_Row]:
    """Return the servers that count, the largest first, then those that take turns with them."""
    shown = shares(account)
    counted = [e for e in _ordered(account) if e.server in shown]
    rows = [_row(e, SHADES[i % len(SHADES)], shown[e.server], one=one) for i, e in enumerate(counted)]
    return rows + [_row(e, " ", whole(e.total), one=one) for e in _ordered(account) if e.server not in shown]


def _row(entry: Entry, shade: str, total: int, *, one: bool) -> _Row:
    parts = named_parts(entry.bytes, entry.overhead)
    sizes = apportion([size for _, size in parts], total)
    turn = f" ({entry.group})" if entry.group else ""
    return _Row(
        shade=shade,
        name=(entry.server if one else entry.deployment) + turn,
        total=total,
        parts=dict(zip((name for name, _ in parts), sizes, strict=True)),
        declared=entry.declared,
        exact=entry.exact,
    )


def _ordered(account: GpuAccount) -> list[Entry]:
    return sorted(account.entries, key=lambda e: (-e.total, e.server))


def shares(account: GpuAccount) -> dict[str, int]:
    """Return whole MiB for each server that counts at the worst moment; they add up to what is used."""
    worst = at_worst(_ordered(account))
    sizes = apportion([e.total for e in worst], whole(account.used))
    return dict(zip((e.server for e in worst), sizes, strict=True))


def bar(account: GpuAccount) -> str:
    """Return a bar: a shade per server that counts, ``-`` for the reserve, ``·`` for what is free."""
    worst = at_worst(_ordered(account))
    pieces = [(SHADES[i % len(SHADES)], e.total) for i, e in enumerate(worst)]
    return _bar([*pieces, (RESERVE, account.gpu.reserve)], account.gpu.memory)


def _bar(pieces: Sequence[tuple[str, int]], size: int) -> str:
    """Return 36 cells for ``size`` bytes; every piece has one at least, at the cost of the longest."""
    cells = [max(1, round(length / max(size, 1) * BAR)) if length else 0 for _, length in pieces]
    while sum(cells) > BAR:
        cells[cells.index(max(cells))] -= 1
    return "".join(shade * count for (shade, _), count in zip(pieces, cells, strict=True)).ljust(BAR, FREE)


def _ram(host: HostAccount) -> Iterator[str]:
    if not host.entries and host.memory is None:
        return
    yield "  RAM"
    for _, some in groupby(sorted(host.entries, key=_kind_of_ram), key=_kind_of_ram):
        yield _ram_row(list(some))
    used, reserve = whole(host.used), whole(host.reserve)
    if host.memory is None:
        yield f"      {'in all':{NAME}}{used:>{COLUMN},} MiB; lab.yaml does not say how much there is"
        return
    free = host.memory // MIB - used - reserve
    left = f"{free:,} free" if free >= 0 else f"OVER by {-free:,}"
    filled = _bar([(SHADES[0], host.used), (RESERVE, host.reserve)], host.memory)
    yield f"    ▕{filled}▏ {used:,} + {reserve:,} reserved of {host.memory // MIB:,} MiB, {left}"


def _kind_of_ram(entry: HostEntry) -> tuple[str, int, bool]:
    return (entry.deployment, entry.total, entry.limited)


def _ram_row(entries: Sequence[HostEntry]) -> str:
    first = entries[0]
    each = f", {len(entries)} servers with {whole(first.total):,} each" if len(entries) > 1 else ""
    turn = f", takes turns in {first.group}" if first.group else ""
    total = whole(sum(e.total for e in entries))
    return f"      {first.deployment:<{NAME}}{total:>{COLUMN},}  {'limit' if first.limited else 'estimate'}{each}{turn}"
