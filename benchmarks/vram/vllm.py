"""Real vLLM logs (``measured.csv``) against labctl's model of vLLM's memory, part by part.

The KV cache follows from the identity that vLLM keeps: utilisation · total − everything else; both factors are the
row's, everything else is estimated.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.vram.aims import verdict
from benchmarks.vram.cases import MIB, Row
from labctl.vram.facts import HfFacts
from labctl.vram.metadata.catalogue import lookup
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.projector import vision_config
from labctl.vram.vllm import Quantisation, Settings
from labctl.vram.vllm.estimate import parts_of

MODELS = Path(__file__).parent / "vllm_models.csv"
WEIGHTS_AIM = 0.5
"""Largest error of weights in per cent."""
KV_AIM = 2.0
"""Median error of the KV cache in per cent."""
_QUANTS = {"fp8": "fp8", "awq": "awq", "gptq": "gptq", "mxfp4": "mxfp4", "bnb": "bitsandbytes"}
_SIZE = re.compile(r"\d+(?:\.\d+)?b(?![a-z])")


class SkippedError(Exception):
    """The row cannot be compared; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """MiB per GPU of one part (``weights``, ``kv`` or ``activation``) of one server."""

    model: str
    repository: str
    part: str
    measured: float
    estimated: float
    error_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """What was left out of a row (``all`` or one part), and why."""

    model: str
    part: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Errors in per cent beside their aims; None without a compared row."""

    weights_rows: int
    weights_median: float | None
    weights_max: float | None
    weights_max_aim: float
    weights_met: bool | None
    kv_rows: int
    kv_median: float | None
    kv_max: float | None
    kv_median_aim: float
    kv_met: bool | None
    activation_median: float | None
    activation_max: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All vLLM rows of a folder."""

    parts: tuple[Part, ...]
    skipped: tuple[Skip, ...]

    def errors(self, part: str) -> list[float]:
        """Sizes of the errors of one part in per cent."""
        return [abs(found.error_percent) for found in self.parts if found.part == part]

    @property
    def summary(self) -> Summary:
        """Medians and maxima, and whether the aims were met."""
        weights, kv, activation = (self.errors(part) for part in ("weights", "kv", "activation"))
        return Summary(
            weights_rows=len(weights),
            weights_median=median(weights) if weights else None,
            weights_max=max(weights, default=None),
            weights_max_aim=WEIGHTS_AIM,
            weights_met=max(weights) <= WEIGHTS_AIM if weights else None,
            kv_rows=len(kv),
            kv_median=median(kv) if kv else None,
            kv_max=max(kv, default=None),
            kv_median_aim=KV_AIM,
            kv_met=median(kv) <= KV_AIM if kv else None,
            activation_median=median(activation) if activation else None,
            activation_max=max(activation, default=None),
        )


def compare(folder: Path) -> Comparison:
    """Compare every vLLM row of the folder's ``measured.csv`` whose model the catalogue knows."""
    path = folder / "measured.csv"
    if not path.exists():
        return Comparison((), (Skip(model="measured.csv", part="all", reason="there is no such file"),))
    known = _labels()
    parts: list[Part] = []
    skipped: list[Skip] = []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("engine") == "vllm"]
    for row in rows:
        label = row.get("model") or "(no name)"
        try:
            for found in _row(row, label, known):
                if isinstance(found, Part):
                    parts.append(found)
                else:
                    skipped.append(found)
        except (SkippedError, MetadataError, ValueError) as error:
            skipped.append(Skip(model=label, part="all", reason=str(error)))
    return Comparison(tuple(parts), tuple(skipped))


def _labels() -> dict[str, Row]:
    with MODELS.open(newline="") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def _facts(label: str, known: dict[str, Row]) -> tuple[str, HfFacts]:
    """Repository and facts of a row's label: by the table, else by the catalogue if the size in its name agrees."""
    entry = known.get(label)
    if entry and not entry["repository"]:
        raise SkippedError(entry["note"])
    repository = entry["repository"] if entry else label
    found = lookup(repository)
    if found is None or found.hf is None:
        msg = f"the catalogue does not know {repository!r}"
        raise SkippedError(msg)
    sizes = set(_SIZE.findall(label.lower()))
    if not entry and not (sizes and sizes <= set(_SIZE.findall(found.source.lower()))):
        msg = f"no row of {MODELS.name} has this label, and the catalogue's nearest model is of another size"
        raise SkippedError(msg)
    return repository, found.hf


def settings_of(row: Row, facts: HfFacts) -> Settings:
    """Settings of the server that a row describes; what it does not say takes the defaults of its version.

    V0 (before 0.8): 256 sequences; a batch is one sequence of full length, or 2048 tokens in chunks beyond 32,768.
    """
    version = row.get("version") or ""
    number = re.search(r"\d+\.\d+(?:\.\d+)?", version)
    old = "V0" in version or bool(number and tuple(map(int, number[0].split(".")[:2])) < (0, 8))
    length = int(row.get("n_ctx_or_maxlen") or 0)
    quant = (row.get("quant_dtype") or "").lower()
    named = next((Quantisation(kind) for word, kind in _QUANTS.items() if word in quant), Quantisation.NONE)
    return Settings(
        max_model_len=length,
        max_num_seqs=int(row.get("parallel_or_seqs") or (256 if old else 0)),
        max_num_batched_tokens=(max(length, 2048) if length <= 32768 else 2048) if old else 0,
        quantization=Quantisation.NONE if "quantization_config" in facts.config else named,
        kv_cache_dtype=row.get("kv_type") or "auto",
        tensor_parallel=int(row.get("tp_or_ngpu") or 1),
        gpu_total_bytes=int(float(row.get("total_gpu_mib") or 0) * MIB),
        version=number[0] if number else "0.6" if old else "0.33.0",
    )


def _row(row: Row, label: str, known: dict[str, Row]) -> Iterator[Part | Skip]:
    repository, facts = _facts(label, known)
    settings = settings_of(row, facts)
    found = parts_of(facts, settings)
    asked = float(row.get("gpu_util") or 0) * float(row.get("total_gpu_mib") or 0)
    values = {
        "weights": ("weights_mib", (found.weights.model + found.weights.rope) / MIB, ""),
        "kv": ("kv_mib", asked - found.counted / MIB, "" if asked else "no utilisation or total in the row"),
        "activation": (
            "compute_or_activation_mib",
            found.peak.bytes / MIB,
            "depends on the images, which the row does not describe" if vision_config(facts.config) else "",
        ),
    }
    for part, (column, estimated, reason) in values.items():
        measured = float(row.get(column) or 0)
        if reason or measured <= 0:
            yield Skip(model=label, part=part, reason=reason or "not in the row")
            continue
        yield Part(
            model=label,
            repository=repository,
            part=part,
            measured=measured,
            estimated=round(estimated, 1),
            error_percent=round((estimated / measured - 1) * 100, 3),
        )


def lines(found: Comparison) -> list[str]:
    """The comparison as lines of text."""
    text = [f"{'vLLM log':28} {'part':12} {'measured MiB':>13} {'estimated MiB':>14} {'error %':>9}"]
    text += [
        f"{part.model:28} {part.part:12} {part.measured:13.1f} {part.estimated:14.1f} {part.error_percent:+9.2f}"
        for part in found.parts
    ]
    got = found.summary
    text += [
        "",
        (
            f"vLLM weights    {got.weights_rows:3} rows, median {_percent(got.weights_median)}, max "
            f"{_percent(got.weights_max)}; aim: max ≤ {WEIGHTS_AIM} %: {verdict(got.weights_met)}"
        ),
        (
            f"vLLM KV cache   {got.kv_rows:3} rows, median {_percent(got.kv_median)}, max {_percent(got.kv_max)}; "
            f"aim: median ≤ {KV_AIM} %: {verdict(got.kv_met)}"
        ),
        (
            f"vLLM activation {len(found.errors('activation')):3} rows, median {_percent(got.activation_median)}, max "
            f"{_percent(got.activation_max)}; no aim"
        ),
    ]
    return text + [f"skipped: {skip.model}, {skip.part}: {skip.reason}" for skip in found.skipped]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"
