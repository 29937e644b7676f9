"""What changed between llama.cpp builds, as data: one row per change.

A build is named ``b<number>`` or by a commit hash. Where the exact build of a change is not known, its row names the
first build in which it was seen: the sources read are those that xllamacpp's releases on PyPI carry (2026.4.8672 is
b8672, and so on) and, for early 2025, the one in llama-cpp-python 0.3.8.
"""

from __future__ import annotations

from dataclasses import replace

from labctl.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a build reserves memory.

    Attributes:
        modern: graphs as of late 2025 (rows set into the cache, fused gates, streams, K-only latent caches) rather
            than those of early 2025.
        output_counts: with ``-ngl n`` the output layer is one of the n; earlier builds took n repeating layers first.
        rotations: quantised caches rotate K and V by a Hadamard matrix, which is a graph input.
        flash_scratch_in_graph: f16 copies of a quantised KV cache are part of the compute buffer.
        outputs_limited: llama-server reserves logits for one token per slot rather than for a whole ubatch.
        fusion_keeps: operands of fused MoE kernels stay allocated until the kernel's end.
        mixed_batches: a batch may mix tokens and embeddings, which takes inputs and a copy of the embeddings.
        offload_min_batch: rows from which a GPU copies host weights instead of leaving the operation to the CPU.
    """

    modern: bool = False
    output_counts: bool = False
    rotations: bool = False
    flash_scratch_in_graph: bool = False
    outputs_limited: bool = False
    fusion_keeps: bool = False
    mixed_batches: bool = False
    offload_min_batch: int = 32


EARLY_2025 = Rules()
"""llama.cpp of February 2025, ``src/llama.cpp``."""
COMMITS = {"c392e50": EARLY_2025}
"""Commits known by name."""

CHANGES: tuple[tuple[int, str, str], ...] = (
    (6200, "modern", "src/llama-kv-cache.cpp, src/llama-graph.cpp: ggml_set_rows, ggml_swiglu_split (seen in 0.2.5)"),
    (7500, "output_counts", "src/llama-model.cpp: i_gpu_start = n_layer + 1 - n_gpu_layers (seen in 0.2.14)"),
    (8672, "rotations", "src/llama-kv-cache.cpp: n_rot_k"),
    (9873, "flash_scratch_in_graph", "ggml/src/ggml-cuda/fattn.cu: ggml_cuda_flash_attn_ext_get_alloc_size"),
    (10566, "outputs_limited", "src/llama-context.cpp: n_outputs_max"),
    (10809, "fusion_keeps", "ggml/src/ggml-cuda/ggml-cuda.cu: add_alloc_dep"),
    (11549, "mixed_batches", "src/llama-graph.cpp: inp_mixed_tokens"),
)
"""(first build, rule that holds from then on, where it was read)."""


def rules_of(build: str) -> Rules:
    """Rules of a build, e.g. ``b11549`` or ``c392e50``.

    Raises:
        ValueError: if the name is neither a build number nor a known commit.
    """
    if build in COMMITS:
        return COMMITS[build]
    number = build.removeprefix("b")
    if not number.isdigit():
        msg = f"unknown llama.cpp build `{build}`: write it as b<number>, e.g. b11549"
        raise ValueError(msg)
    held = {name: True for first, name, _ in CHANGES if int(number) >= first}
    return replace(EARLY_2025, **held)
