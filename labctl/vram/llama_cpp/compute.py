"""Bytes of the compute buffers: build the worst-case graph, schedule it, replay the allocator.

Source: llama.cpp b11549, ``src/llama-context.cpp`` (``sched_reserve``, ``graph_reserve``).
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.vram.llama_cpp import fallback
from labctl.vram.llama_cpp.architectures import builders, known
from labctl.vram.llama_cpp.backends import Machine
from labctl.vram.llama_cpp.builds import Rules
from labctl.vram.llama_cpp.cache import Cache
from labctl.vram.llama_cpp.placement import Placement
from labctl.vram.llama_cpp.scene import MissingTensorError, Scene
from labctl.vram.llama_cpp.scheduler import reserve
from labctl.vram.llama_cpp.sequence import shortened

MARGIN = 4
"""A bound gets this part of itself on top, for what no weight matrix shows (sparse attention, states, masks)."""


def buffers(placement: Placement, cache: Cache, rules: Rules) -> tuple[list[int], bool]:
    """Bytes of the compute buffer of each GPU, then of the host; and whether they are exact rather than a bound."""
    model = placement.model
    sequence = shortened(placement, cache)
    machine = Machine(placement.gpus, rules, op_offload=placement.settings.op_offload)
    outputs = reserved_outputs(cache, rules)

    def sizes(build: Callable[[Scene], None]) -> list[int]:
        scene = Scene(placement, cache, cache.tokens, outputs, sequence)
        build(scene)
        return reserve(scene.graph, machine, pipeline=pipelined(placement))

    best, exact = [0] * (placement.gpus + 1), known(model.arch)
    for build in builders(model.arch):
        try:
            best = [max(pair) for pair in zip(best, sizes(build), strict=True)]
        except MissingTensorError:
            exact = False
            best = [max(pair) for pair in zip(best, sizes(fallback.build), strict=True)]
    return best if exact else [size + size // MARGIN for size in best], exact


def reserved_outputs(cache: Cache, rules: Rules) -> int:
    """Tokens whose logits a server of this build reserves per physical batch."""
    settings = cache.settings
    wanted = settings.outputs
    if wanted is None and rules.outputs_limited and not settings.embeddings:
        wanted = settings.slots
    return min(cache.batch_tokens, wanted or cache.batch_tokens)


def pipelined(placement: Placement) -> bool:
    """Whether several GPUs work on successive batches at once, which copies every input four times."""
    settings = placement.settings
    return (
        placement.gpus > 1
        and settings.gpu_layers > placement.model.all_layers
        and settings.split_mode == "layer"
        and settings.kv_offload
        and settings.cpu_moe_layers == 0
    )
