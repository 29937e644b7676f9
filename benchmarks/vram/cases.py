"""The truth: rows of CSV files as cases to estimate.

A folder holds ``models.json`` (or ``models.json.gz``) with each model's header, and files of rows; see
``tests/data/vram/README.md`` for the columns.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.vram.facts import GgufFacts, Tensor
from labctl.vram.llama_cpp import Settings

MIB = 2**20
Row = dict[str, str]
Skipped = Counter[str]
"""What was left out, in words, and how many rows that was."""


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
    """Headers by model and quantisation; empty when the folder has none."""
    plain, packed = folder / "models.json", folder / "models.json.gz"
    if not plain.exists() and not packed.exists():
        return {}
    text = plain.read_text() if plain.exists() else gzip.decompress(packed.read_bytes()).decode()
    found = {}
    for name, entry in json.loads(text).items():
        metadata = {k: tuple(v) if isinstance(v, list) else v for k, (_, v) in entry["metadata"].items()}
        for quant, tensors in entry["tensors"].items():
            found[name, quant] = GgufFacts(
                metadata=metadata,
                tensors=tuple(Tensor(n, tuple(shape), kind) for n, shape, kind in tensors),
                vocab=entry.get("vocab", 0),
            )
    return found


def load(folder: Path) -> list[Case]:
    """Every row of the folder whose model is known."""
    return read(folder)[0]


def read(folder: Path) -> tuple[list[Case], Skipped]:
    """Every row of the folder's ``llamacpp-BUILD.csv`` and ``llamacpp-BUILD-multigpu.csv``, and what was left out."""
    known = models(folder)
    found: list[Case] = []
    skipped: Skipped = Counter()
    paths = sorted(folder.glob("llamacpp-*.csv"))
    if not known:
        skipped[f"{folder}: neither models.json nor models.json.gz"] += 1
    if not paths:
        skipped[f"{folder}: no llamacpp-*.csv"] += 1
    for path in paths:
        build, several = path.stem.removeprefix("llamacpp-"), path.stem.endswith("-multigpu")
        make = _several if several else _single
        for row in _rows(path):
            if (row.get("model"), row.get("quant")) not in known:
                skipped[f"{path.name}: {row.get('model')} {row.get('quant')} is not in models.json"] += 1
                continue
            try:
                found += make(row, known, build.removesuffix("-multigpu"))
            except KeyError as error:
                skipped[f"{path.name}: rows without the column {error}"] += 1
            except (ValueError, TypeError) as error:
                skipped[f"{path.name}: {row['model']}: {error}"] += 1
    return found, skipped


def _rows(path: Path) -> Iterator[Row]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def settings_of(row: Row, build: str) -> Settings:
    """Settings of the server that a row describes."""
    kind = row.get("kv_k") or row.get("kv") or "f16"
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
        outputs=int(row["n_outputs_max"] or 0) if "n_outputs_max" in row else None,
        build=build,
        backend="cpu" if row.get("backend") == "CPU" else "cuda",
        devices=int(row.get("n_gpu") or 1),
    )


def _single(row: Row, known: dict[tuple[str, str], GgufFacts], build: str) -> Iterator[Case]:
    facts = known[row["model"], row["quant"]]
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


def _several(row: Row, known: dict[tuple[str, str], GgufFacts], build: str) -> Iterator[Case]:
    """One case per GPU; rows of the host's buffers are not compared."""
    facts = known[row["model"], row["quant"]]
    if row["device"].removeprefix("CUDA").isdigit():
        device = int(row["device"].removeprefix("CUDA"))
        truth = _bytes(row, ("model_mib", "context_mib", "compute_mib"))
        group = "several GPUs" if build == "b11549" else f"build {build}, several GPUs"
        yield Case(group, row["model"], facts, settings_of(row, build), device, truth)


def _bytes(row: Row, parts: tuple[str, ...]) -> int:
    return int(sum(float(row[part]) for part in parts) * MIB)
