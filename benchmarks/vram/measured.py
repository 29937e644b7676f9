"""Real GPU logs of llama.cpp: the parts of its memory, where the model is known (``vllm`` has vLLM's).

The rows come from logs that others published (``measured.csv``); a part that a log does not print is left out.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from benchmarks.vram.cases import MIB, models
from labctl.vram.facts import GgufFacts
from labctl.vram.llama_cpp import Settings, estimate

Log = dict[str, str | float]

KNOWN: dict[str, tuple[str, str, Settings]] = {
    "Qwen3-4B": ("qwen3-4b", "Q4_K_M", Settings(context=8192, slots=4, unified_kv=True)),
    "Mistral-7B-Instruct": (
        "mistral-7b-v0.3",
        "Q4_K_M",
        Settings(context=32768, flash_attention=False, build="c392e50"),
    ),
}
"""Name in ``measured.csv`` → model, quantisation and settings of that server, where the row says nothing else."""


def compare(folder: Path) -> list[Log]:
    """Measured and estimated MiB, part by part."""
    path = folder / "measured.csv"
    if not path.exists():
        return []
    facts = models(folder)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        log
        for row in rows
        if row.get("engine") == "llama.cpp" and row.get("model") in KNOWN
        for log in _parts(row, facts)
    ]


def _parts(row: dict[str, str], facts: dict[tuple[str, str], GgufFacts]) -> list[Log]:
    model, quant, settings = KNOWN[row["model"]]
    if (model, quant) not in facts:
        return []
    stated = replace(
        settings,
        context=_count(row, "n_ctx_or_maxlen", settings.context),
        slots=_count(row, "parallel_or_seqs", settings.slots),
        ubatch=_count(row, "ubatch", settings.ubatch),
    )
    device = estimate(facts[model, quant], stated).devices[0]
    values = {"weights_mib": device.weights, "kv_mib": device.context, "compute_or_activation_mib": device.compute}
    return [
        {"model": row["model"], "part": part, "measured": float(row[part]), "estimated": round(value / MIB, 2)}
        for part, value in values.items()
        if _number(row.get(part))
    ]


def _count(row: dict[str, str], column: str, default: int) -> int:
    text = row.get(column) or ""
    return int(text) if text.isdecimal() else default


def _number(text: str | None) -> bool:
    return bool(text) and str(text).replace(".", "", 1).isdecimal()


def lines(logs: list[Log]) -> list[str]:
    """The comparison as lines of text."""
    if not logs:
        return ["no measured logs of a known model in this folder"]
    found = [f"{'measured log':34} {'part':26} {'measured MiB':>13} {'estimated MiB':>14}"]
    found += [f"{log['model']:34} {log['part']:26} {log['measured']:13} {log['estimated']:14}" for log in logs]
    return found
