"""Bytes of the compute buffers: build the worst-case graph, schedule it, replay the allocator.

Source: llama.cpp b11549, ``src/llama-context.cpp`` (``sched_reserve``, ``graph_reserve``).
"""

from __future__ import annotations

from labctl.vram.llama_cpp.architectures import builders, known
from labctl.vram.llama_cpp.backends import Machine
from labctl.vram.llama_cpp.builds import Rules
from labctl.vram.llama_cpp.cache import Cache
from labctl.vram.llama_cpp.placement import Placement
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.scheduler import reserve
from labctl.vram.llama_cpp.sequence import shortened


def buffers(placement: Placement, cache: Cache, rules: Rules) -> list[int]:
    """Bytes of the compute buffer of each GPU, then of the host.

    Raises:
        ValueError: if a file lacks a tensor that its architecture needs.
    """
    model = placement.model
    sequence = shortened(placement, cache)
    machine = Machine(placement.gpus, rules, op_offload=placement.settings.op_offload)
    best = [0] * (placement.gpus + 1)
    for build in builders(model.arch):
        outputs = min(cache.tokens, reserved_outputs(cache, rules))
        scene = Scene(placement, cache, cache.tokens, outputs, sequence)
        try:
            build(scene)
        except ValueError:
            if known(model.arch):
                raise
            continue
        sizes = reserve(scene.graph, machine, pipeline=pipelined(placement))
        best = [max(pair) for pair in zip(best, sizes, strict=True)]
    return best


def reserved_outputs(cache: Cache, rules: Rules) -> int:
    """Tokens whose logits a server of this build reserves per physical batch."""
    settings = cache.settings
    if settings.outputs:
        return settings.outputs
    if settings.outputs is None and rules.outputs_limited and not settings.embeddings:
        return settings.slots
    return cache.tokens


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
