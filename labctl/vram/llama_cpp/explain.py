"""The derivation of an estimate in words, for ``vram-budget --explain``."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.vram.footprint import Step
from labctl.vram.llama_cpp.cache import Cache
from labctl.vram.llama_cpp.compute import pipelined, reserved_outputs
from labctl.vram.llama_cpp.placement import Placement

Parts = tuple[list[int], list[int], list[int]]
"""Weights, context and compute: bytes per GPU, then on the host."""


def steps(placement: Placement, cache: Cache, parts: Parts, output: int) -> tuple[Step, ...]:
    """Every number of the footprint, device by device."""
    weights, context, compute = parts
    found: list[Step] = []
    for device in range(placement.gpus + 1):
        name = f"GPU {device}" if device < placement.gpus else "host"
        found.append(_weights(placement, device, name, weights[device]))
        if context[device]:
            found += _contexts(placement, cache, device, name)
        found.append(_compute(placement, cache, device, name, compute[device]))
    formula = f"{cache.settings.slots} slots · (vocabulary{' + width' if cache.settings.embeddings else ''}) · 4 B"
    found.append(Step("host: output buffer", output, formula, "llama.cpp src/llama-context.cpp, output_reserve"))
    return tuple(found)


def _weights(placement: Placement, device: int, name: str, size: int) -> Step:
    layers = [il for il in range(placement.model.all_layers) if placement.layer(il) == device]
    what = [f"blocks {layers[0]}–{layers[-1]}"] if layers else []
    if placement.output == device:
        what.append("the output layer")
    if device == placement.gpus:
        what.insert(0, "the token embedding")
    padding = "32 B" if device == placement.gpus else "128 B, rows of quantised tensors to 512 elements"
    formula = f"Σ of the tensors of {', '.join(what) or 'nothing'}, each padded to {padding}"
    return Step(f"{name}: weights", size, formula, "llama.cpp src/llama-model.cpp, load_tensors")


def _contexts(placement: Placement, cache: Cache, device: int, name: str) -> Iterator[Step]:
    model, host = placement.model, device == placement.gpus
    here = [
        il
        for il in range(model.layers)
        if (placement.layer(il) if placement.settings.kv_offload else placement.gpus) == device
    ]
    groups = {
        "KV cache": [il for il in here if cache.attends(il) and not model.swa(il) and not cache.keeps_state(il)],
        "sliding-window KV cache": [il for il in here if cache.attends(il) and model.swa(il)],
        "recurrent state": [il for il in here if cache.keeps_state(il)],
    }
    for label, layers in groups.items():
        if layers:
            size = sum(cache.layer_bytes(il, host=host) for il in layers)
            yield Step(f"{name}: {label}", size, _context_formula(cache, label, layers), _CONTEXT_SOURCE)


_CONTEXT_SOURCE = "llama.cpp src/llama-kv-cache.cpp, src/llama-kv-cache-iswa.cpp, src/llama-memory-recurrent.cpp"


def _context_formula(cache: Cache, label: str, layers: list[int]) -> str:
    il, slots = layers[0], cache.settings.slots
    if label == "recurrent state":
        return f"{len(layers)} layers · {slots} slots · ({cache.conv_state} + {cache.scan_state}) · 4 B"
    row = f"{cache.row_k(il)} {cache.type_k.lower()}"
    if cache.has_v:
        row += f" + {cache.row_v(il)} {cache.type_v.lower()}"
    cells = f"{cache.cells_of(il)} cells"
    if label != "KV cache":
        window = cache.model.window
        cells += f" (window {window} + physical batch {cache.ubatch}, padded to 256, at most the context)"
    return f"{len(layers)} layers · {cache.streams} streams · {cells} · ({row})"


def _compute(placement: Placement, cache: Cache, device: int, name: str, size: int) -> Step:
    outputs = reserved_outputs(cache, cache.rules)
    formula = (
        f"highest address that ggml's allocator reaches over the graph of `{placement.model.arch}` for "
        f"{cache.tokens} tokens and {outputs} outputs"
    )
    if pipelined(placement):
        formula += ", with four copies of every input for pipelining"
    if device < placement.gpus and any(placement.layer(il) == placement.gpus for il in range(placement.model.layers)):
        formula += ", copies of host weights included"
    return Step(f"{name}: compute buffer", size, formula, "llama.cpp ggml/src/ggml-alloc.c, ggml/src/ggml-backend.cpp")
