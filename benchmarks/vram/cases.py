"""The truth: rows of CSV files as cases to estimate.

A folder holds ``models.json`` (or ``models.json.gz``) with each model's header, and files of rows; see
``tests/data/vram/README.md`` for the columns.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.vram.facts import GgufFacts, Tensor
from labctl.vram.llama_cpp import Settings

MIB = 2**20
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One server, and what it allocates on one device (GPU ``device``, or the host when it is -1), in bytes."""

    group: str
    model: str
    facts: GgufFacts
    settings: Settings
    device: int
    truth: int


def models(folder: Path) -> dict[tuple[str, str], GgufFacts]:
    """Headers by model and quantisation."""
    plain, packed = folder / "models.json", folder / "models.json.gz"
    text = plain.read_text() if plain.exists() else gzip.decompress(packed.read_bytes()).decode()
    found = {}
    for name, entry in json.loads(text).items():
        metadata = {k: tuple(v) if isinstance(v, list) else v for k, (_, v) in entry["metadata"].items()}
        for quant, tensors in entry["tensors"].items():
            found[name, quant] = GgufFacts(
                metadata=metadata,
                tensors=tuple(Tensor(n, tuple(shape), kind) for n, shape, kind in tensors),
                vocab=entry["vocab"],
            )
    return found


def load(folder: Path) -> list[Case]:
    """Every row of the folder whose model is known."""
    known = models(folder)
    found = [case for row in _rows(folder / "llamacpp-b11549.csv") for case in _single(row, known, "b11549")]
    found += [case for row in _rows(folder / "llamacpp-c392e50.csv") for case in _single(row, known, "c392e50")]
    found += [case for row in _rows(folder / "llamacpp-b11549-multigpu.csv") for case in _several(row, known)]
    return found


def _rows(path: Path) -> Iterator[Row]:
    if path.exists():
        with path.open(newline="") as file:
            yield from csv.DictReader(file)


def settings_of(row: Row, build: str) -> Settings:
    """Settings of the server that a row describes."""
    kind = row.get("kv_k") or row["kv"]
    return Settings(
        context=int(row["ctx"]),
        slots=int(row["parallel"]),
        kv_cache_k=kind,
        kv_cache_v=row.get("kv_v") or kind,
        flash_attention=row["fa"] == "1",
        batch=int(row.get("n_batch") or 2048),
        ubatch=int(row["ubatch"]),
        gpu_layers=int(row["ngl"]),
        unified_kv=row.get("kv_unified") == "1",
        swa_full=row.get("swa_full") == "1",
        embeddings=row.get("embeddings") == "1",
        outputs=int(row["n_outputs_max"] or 0),
        build=build,
        backend="cpu" if row.get("backend") == "CPU" else "cuda",
        devices=int(row.get("n_gpu") or 1),
    )


def _single(row: Row, known: dict[tuple[str, str], GgufFacts], build: str) -> Iterator[Case]:
    facts = known.get((row["model"], row["quant"]))
    if facts is None:
        return
    settings = settings_of(row, build)
    parts: tuple[str, ...]
    if settings.backend == "cpu":
        parts, device, group = ("model_mib", "kv_mib", "compute_mib", "output_mib"), -1, "CPU only"
    else:
        parts, device = ("model_mib", "kv_mib", "compute_mib"), 0
        group = _group(facts, settings)
    yield Case(group, row["model"], facts, settings, device, _bytes(row, parts))


def _group(facts: GgufFacts, settings: Settings) -> str:
    if settings.build != "b11549":
        return f"build {settings.build}, " + ("full offload" if settings.gpu_layers == 99 else "partial offload")
    if "bert" in facts.architecture:
        return "encoders"
    return "full offload" if settings.gpu_layers == 99 else "partial offload"


def _several(row: Row, known: dict[tuple[str, str], GgufFacts]) -> Iterator[Case]:
    facts = known.get((row["model"], row["quant"]))
    if facts is not None and row["device"].removeprefix("CUDA").isdigit():
        device = int(row["device"].removeprefix("CUDA"))
        truth = _bytes(row, ("model_mib", "context_mib", "compute_mib"))
        yield Case("several GPUs", row["model"], facts, settings_of(row, "b11549"), device, truth)


def _bytes(row: Row, parts: tuple[str, ...]) -> int:
    return int(sum(float(row[part]) for part in parts) * MIB)
