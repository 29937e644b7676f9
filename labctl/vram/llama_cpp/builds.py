"""What changed between llama.cpp builds, as data: one row per rule.

A build is named ``b<number>`` or by a commit hash. Numbers between two rows follow the older row's rules only if the
change came later; each row says from which build on it holds and where that was read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a build reserves memory.

    Attributes:
        name: the build.
        modern: the graphs of 2026 (set_rows into the cache, fused GLU) rather than those of early 2025.
        offload_min_batch: rows from which a GPU copies host weights instead of leaving the operation to the CPU.
        flash_scratch_in_graph: f16 copies of a quantised KV cache are part of the compute buffer.
        fusion_keeps: operands of fused MoE kernels stay allocated until the kernel's end.
        output_counts: with ``-ngl n`` the output layer is one of the n; earlier builds took n repeating layers first.
        outputs_limited: llama-server reserves logits for one token per slot rather than for a whole ubatch.
    """

    name: str
    modern: bool
    offload_min_batch: int = 32
    flash_scratch_in_graph: bool = True
    fusion_keeps: bool = True
    outputs_limited: bool = True
    output_counts: bool = True


MODERN = Rules(name="b11549", modern=True)
"""llama.cpp b11549 (October 2026): read in ``src/llama-graph.cpp``, ``src/llama-context.cpp``, ``ggml-cuda.cu``."""

EARLY_2025 = Rules(
    name="c392e50",
    modern=False,
    flash_scratch_in_graph=False,
    fusion_keeps=False,
    outputs_limited=False,
    output_counts=False,
)
"""llama.cpp of February 2025 (b47xx): read in ``src/llama.cpp`` of the release vendored by llama-cpp-python 0.3.8."""

_FIRST_MODERN = 6900
"""Between the two rows the change was gradual; from here on (late 2025) the modern rules are the closer ones."""


def rules_of(build: str) -> Rules:
    """Rules of a build, e.g. ``b11549`` or ``c392e50``.

    Raises:
        ValueError: if the name is neither a build number nor a known commit.
    """
    if build == EARLY_2025.name:
        return EARLY_2025
    number = build.removeprefix("b")
    if number.isdigit():
        return MODERN if int(number) >= _FIRST_MODERN else EARLY_2025
    msg = f"unknown llama.cpp build `{build}`: write it as b<number>, e.g. b11549"
    raise ValueError(msg)
