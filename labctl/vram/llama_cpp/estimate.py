"""The estimate itself: weights, context and compute buffers per device, and how each number came about."""

from __future__ import annotations

from labctl.vram.facts import GgufFacts
from labctl.vram.footprint import DeviceBytes, Footprint
from labctl.vram.llama_cpp.builds import rules_of
from labctl.vram.llama_cpp.cache import Cache
from labctl.vram.llama_cpp.compute import buffers
from labctl.vram.llama_cpp.model import Model
from labctl.vram.llama_cpp.placement import Placement
from labctl.vram.llama_cpp.settings import Settings


def estimate(facts: GgufFacts, settings: Settings) -> Footprint:
    """Memory of one llama-server."""
    rules = rules_of(settings.build)
    model = Model(facts)
    placement = Placement(model, settings, rules)
    cache = Cache(model, settings, rules)
    context = [0] * (placement.gpus + 1)
    for il in range(model.all_layers):
        device = placement.layer(il) if settings.kv_offload else placement.gpus
        context[device] += cache.layer_bytes(il, host=device == placement.gpus)
    compute = buffers(placement, cache, rules)
    devices = tuple(
        DeviceBytes(weights=w, context=c, compute=b)
        for w, c, b in zip(placement.weights[:-1], context[:-1], compute[:-1], strict=True)
    )
    return Footprint(devices=devices, host=placement.weights[-1] + context[-1] + compute[-1])
