"""The VRAM budget as plain data, for ``--json``; all sizes in bytes."""

from __future__ import annotations

from typing import Any

from labctl.placed import Server
from labctl.resolve.lab import PlacedLab
from labctl.resolve.ledger import GpuAccount, Ledger
from labctl.vram.footprint import Footprint


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
