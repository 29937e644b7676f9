"""The VRAM budget: as a table with bars per card, as JSON, and every number derived in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labctl.estimate import WhatIf
from labctl.placed import Server
from labctl.quantity import format_size
from labctl.resolve.lab import PlacedLab
from labctl.resolve.ledger import Entry, GpuAccount, HostAccount, Ledger
from labctl.vram.footprint import Footprint

BAR = 40
BLOCKS = "█▓▒░"


def budget_text(ledger: Ledger) -> str:
    """Return the ledger for people: one bar per card, one row per server, one line per host."""
    lines: list[str] = []
    hosts = {h.host: h for h in ledger.hosts}
    for name, host in hosts.items():
        cards = [a for a in ledger.gpus if a.host == name]
        if cards or host.entries:
            lines += [f"{name}  {_ram(host)}", *(line for card in cards for line in _card(card)), ""]
    lines += [_unknown(ledger)] if ledger.unknown else []
    lines.append("Everything fits." if ledger.fits else "Over budget: see the errors.")
    return "\n".join(lines)


def _ram(host: HostAccount) -> str:
    if host.memory is None:
        return f"RAM {format_size(host.used)} of an unstated amount"
    mark = "" if host.fits else "  OVER"
    return (
        f"RAM {format_size(host.used)} used + {format_size(host.reserve)} reserved of {format_size(host.memory)},"
        f" {format_size(max(0, host.free or 0))} free{mark}"
    )


def _card(account: GpuAccount) -> Iterator[str]:
    gpu = account.gpu
    mark = "" if account.fits else f"  OVER by {format_size(-account.free)}"
    total = f"{format_size(account.used + gpu.reserve)} of {format_size(gpu.memory)}"
    yield f"  GPU {gpu.index} {gpu.model:<18} {bar(account)} {total}, {format_size(max(0, account.free))} free{mark}"
    for i, entry in enumerate(account.entries):
        turn = f"  takes turns in `{entry.group}`" if entry.group else ""
        exact = "" if entry.exact or entry.declared else "  ~ from the model's name"
        size = format_size(entry.total)
        yield f"    {BLOCKS[i % len(BLOCKS)]} {entry.server:<28} {size:>9}  {parts(entry)}{turn}{exact}"


def bar(account: GpuAccount) -> str:
    """Return a bar of 40 cells: a shade per server, ``-`` for the reserve, ``·`` for what is free."""
    size = max(account.gpu.memory, 1)
    cells = ""
    shown = [e for e in account.entries if e.group is None] + _largest_of_groups(account)
    for i, entry in enumerate(account.entries):
        if entry in shown:
            cells += BLOCKS[i % len(BLOCKS)] * round(entry.total / size * BAR)
    cells += "-" * round(account.gpu.reserve / size * BAR)
    return "▕" + cells[:BAR].ljust(BAR, "·") + "▏"


def _largest_of_groups(account: GpuAccount) -> list[Entry]:
    largest: dict[str, Entry] = {}
    for entry in account.entries:
        if entry.group and (entry.group not in largest or entry.total > largest[entry.group].total):
            largest[entry.group] = entry
    return list(largest.values())


def parts(entry: Entry) -> str:
    """Return what a server's bytes are made of."""
    if entry.declared:
        return "declared"
    named = (
        ("weights", entry.bytes.weights),
        ("context", entry.bytes.context),
        ("compute", entry.bytes.compute),
        ("other", entry.bytes.other),
        ("process", entry.overhead),
    )
    return " + ".join(f"{name} {format_size(size)}" for name, size in named if size)


def _unknown(ledger: Ledger) -> str:
    return "Nothing is known of the memory of: " + ", ".join(ledger.unknown)


def budget_json(placed: PlacedLab) -> dict[str, Any]:
    """Return the ledger as plain data; all sizes in bytes."""
    ledger = placed.ledger
    return {
        "lab": placed.lab.name,
        "fits": ledger.fits,
        "gpus": [_gpu_json(a) for a in ledger.gpus],
        "hosts": [
            {
                "host": h.host,
                "capacity_bytes": h.memory,
                "reserve_bytes": h.reserve,
                "used_bytes": h.used,
                "free_bytes": h.free,
                "fits": h.fits,
                "entries": [{"server": e.server, "bytes": e.total, "limited": e.limited} for e in h.entries],
            }
            for h in ledger.hosts
        ],
        "deployments": [_server_json(s, ledger) for s in placed.servers],
        "unknown": list(ledger.unknown),
    }


def _gpu_json(account: GpuAccount) -> dict[str, Any]:
    gpu = account.gpu
    return {
        "host": account.host,
        "gpu": gpu.index,
        "uuid": gpu.uuid,
        "model": gpu.model,
        "capacity_bytes": gpu.memory,
        "reserve_bytes": gpu.reserve,
        "used_bytes": account.used,
        "free_bytes": account.free,
        "fits": account.fits,
    }


def _server_json(server: Server, ledger: Ledger) -> dict[str, Any]:
    footprint = ledger.footprints.get(server.name) or Footprint()
    return {
        "deployment": server.deployment,
        "replica": server.name,
        "engine_version": server.runtime.version,
        "declared": footprint.declared,
        "exact": footprint.exact,
        "known": server.name in ledger.footprints,
        "devices": [
            {
                "host": server.host.name,
                "gpu": gpu.index,
                "weights_bytes": d.weights,
                "context_bytes": d.context,
                "compute_bytes": d.compute,
                "other_bytes": d.other,
                "total_bytes": d.total,
            }
            for gpu, d in zip(server.gpus, footprint.devices, strict=False)
        ],
        "host_bytes": footprint.host,
    }


def footprint_json(footprint: Footprint) -> dict[str, Any]:
    """Return the footprint of one model file, estimated without a lab."""
    return {
        "exact": footprint.exact,
        "devices": [
            {
                "host": None,
                "gpu": i,
                "weights_bytes": d.weights,
                "context_bytes": d.context,
                "compute_bytes": d.compute,
                "other_bytes": d.other,
                "total_bytes": d.total,
            }
            for i, d in enumerate(footprint.devices)
        ],
        "host_bytes": footprint.host,
        "notes": list(footprint.notes),
    }


def explain_text(name: str, footprint: Footprint) -> str:
    """Return the derivation of every number of a server, in words, with its source."""
    lines = [f"{name}: {format_size(sum(d.total for d in footprint.devices))} on {len(footprint.devices)} card(s)"]
    for i, device in enumerate(footprint.devices):
        lines.append(
            f"  card {i}: weights {format_size(device.weights)}, context {format_size(device.context)},"
            f" compute {format_size(device.compute)}, other {format_size(device.other)}"
        )
    lines.append(f"  host: {format_size(footprint.host)}")
    for step in footprint.steps:
        source = f"  [{step.source}]" if step.source else ""
        lines.append(f"  {step.label:<24} {format_size(step.bytes):>10}  {step.formula}{source}")
    return "\n".join([*lines, *(f"  note: {note}" for note in footprint.notes)])


def max_context_text(answer: WhatIf) -> str:
    """Return the answer to ``--max-context`` as one line."""
    if answer.largest is None:
        return f"{answer.server}: not even a context of 256 tokens fits"
    bound = " (as long as the model was trained for)" if answer.largest == answer.trained else ""
    return f"{answer.server}: up to {answer.largest} tokens of context{bound}; it has {answer.now}"
