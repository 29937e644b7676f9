"""From a budget in bytes to ``--gpu-memory-utilization``, ``--kv-cache-memory-bytes``, context and concurrency."""

from __future__ import annotations

import math
from decimal import ROUND_DOWN, Decimal

from labctl.values import dataclass
from labctl.vram.facts import HfFacts
from labctl.vram.footprint import Step
from labctl.vram.vllm.estimate import Parts, notes, parts_of, steps
from labctl.vram.vllm.settings import Settings

DIGITS = Decimal("0.0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What to tell vLLM, and what follows. Bytes are per GPU.

    Attributes:
        utilisation: ``--gpu-memory-utilization``, rounded down; None when the device's total is not known.
        requested_bytes: what vLLM then asks for: utilisation · total, rounded up; before 0.21 CUDA graphs come on top.
        kv_cache_bytes: ``--kv-cache-memory-bytes``: what is left for the KV cache, in whole blocks.
        kv_cache_tokens: tokens of full-length sequences that it holds in all.
        longest_sequence: tokens of the longest single sequence, at most ``max_model_len``.
        concurrency: sequences of full length at once.
        smallest_bytes: the least budget with which it starts at all.
        starts: whether the budget suffices for one sequence of full length.
        steps: the derivation.
        notes: assumptions.
    """

    utilisation: Decimal | None
    requested_bytes: int
    kv_cache_bytes: int
    kv_cache_tokens: int
    longest_sequence: int
    concurrency: float
    smallest_bytes: int
    starts: bool
    steps: tuple[Step, ...]
    notes: tuple[str, ...]


def plan_budget(facts: HfFacts, settings: Settings) -> Budget:
    """Return how a server must be started to stay inside ``settings.budget_bytes`` (by default: the least that starts).

    Raises:
        MetadataError: ``config.json`` describes no language model.
    """
    parts = parts_of(facts, settings)
    wanted = parts.least + parts.sequence * (max(1, settings.kv_sequences) - 1)
    budget = settings.budget_bytes if settings.budget_bytes is not None else wanted
    asked = max(0, budget - parts.beside)
    utilisation = fraction(asked, settings.gpu_total_bytes, up=settings.budget_bytes is None)
    requested = _requested(utilisation, settings.gpu_total_bytes) if utilisation is not None else asked
    blocks = parts.cache.blocks(requested - parts.counted)
    cache = blocks * parts.cache.block_bytes
    per_sequence = parts.cache.sequence_blocks(parts.model_len)
    concurrency = blocks / per_sequence if per_sequence else float(settings.sequences)
    return Budget(
        utilisation=utilisation,
        requested_bytes=requested,
        kv_cache_bytes=cache,
        kv_cache_tokens=int(concurrency * parts.model_len) if per_sequence else 0,
        longest_sequence=parts.cache.longest(cache, parts.model_len) if per_sequence else parts.model_len,
        concurrency=concurrency,
        smallest_bytes=parts.least,
        starts=requested >= parts.counted + parts.sequence,
        steps=(*steps(parts, settings), *_steps(parts, requested, cache, utilisation)),
        notes=notes(facts, parts, settings),
    )


def fraction(budget: int, total: int, *, up: bool = False) -> Decimal | None:
    """Return ``budget / total`` with four decimals, rounded down (or up), at most 1; None without a total."""
    if total <= 0:
        return None
    exact = Decimal(budget) / Decimal(total)
    rounded = exact.quantize(DIGITS, rounding=ROUND_DOWN)
    return min(Decimal(1), rounded + DIGITS if up and rounded < exact else rounded)


def _requested(utilisation: Decimal, total: int) -> int:
    """``ceil(total · utilisation)``, as vLLM 0.33 ``v1/worker/utils.py`` (``request_memory``) has it."""
    return math.ceil(total * float(utilisation))


def _steps(parts: Parts, requested: int, cache: int, utilisation: Decimal | None) -> tuple[Step, ...]:
    asked = f"{utilisation} of the device's total, rounded up" if utilisation is not None else "the budget"
    return (
        Step("asked of the GPU", requested, asked, "vLLM v1/worker/utils.py, request_memory"),
        Step("KV cache", cache, f"what is left after {parts.counted} B, in whole blocks", "vLLM gpu_worker.py"),
        Step("smallest budget", parts.least, f"all of that and one sequence of {parts.model_len} tokens", "vLLM"),
    )
