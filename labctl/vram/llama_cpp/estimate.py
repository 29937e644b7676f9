"""The estimate itself: weights, context and compute buffers per device, and how each number came about."""

from __future__ import annotations

from dataclasses import replace

from labctl.vram.facts import GgufFacts
from labctl.vram.footprint import DeviceBytes, Footprint
from labctl.vram.llama_cpp import explain, extras
from labctl.vram.llama_cpp.builds import Rules, rules_of
from labctl.vram.llama_cpp.cache import Cache
from labctl.vram.llama_cpp.compute import buffers
from labctl.vram.llama_cpp.model import model_of
from labctl.vram.llama_cpp.placement import Placement
from labctl.vram.llama_cpp.quants import block, is_quantized
from labctl.vram.llama_cpp.settings import Settings

BACKENDS = frozenset({"cuda", "rocm", "vulkan", "cpu"})
SPLITS = frozenset({"layer", "row", "none"})


def estimate(facts: GgufFacts, settings: Settings) -> Footprint:
    """Memory of one llama-server, in bytes.

    Args:
        facts: header of the model file.
        settings: how the server is started.

    Returns:
        One entry per GPU; ``host`` counts the host's weights, caches, compute buffer and output buffer.

    Raises:
        ValueError: if llama.cpp would refuse the settings, or the file lacks what its architecture needs.
    """
    if settings.projector or settings.lora or settings.draft:
        return _computed(facts, settings)
    known = model_of(facts).estimates
    if settings not in known:
        known[settings] = _computed(facts, settings)
    return known[settings]


def _computed(facts: GgufFacts, settings: Settings) -> Footprint:
    rules = rules_of(settings.build)
    if facts.architecture in NO_FLASH:
        settings = replace(settings, flash_attention=False)
    check(settings)
    placement = Placement(model_of(facts), settings, rules)
    cache = Cache(placement.model, settings, rules)
    weights, context = placement.weights, contexts(placement, cache)
    compute, exact = buffers(placement, cache, rules)
    devices = tuple(
        DeviceBytes(weights=w, context=c, compute=b)
        for w, c, b in zip(weights[:-1], context[:-1], compute[:-1], strict=True)
    )
    output = output_bytes(facts, settings, rules)
    notes = remarks(placement, exact=exact)
    footprint = Footprint(
        devices=devices,
        host=weights[-1] + context[-1] + compute[-1] + output,
        steps=explain.steps(placement, cache, (weights, context, compute), output),
        exact=not notes,
        notes=(*notes, RESERVE),
    )
    return extras.added(footprint, settings, estimate_draft)


RESERVE = "The driver's own context (CUDA: some hundreds of MiB per process) is not part of these numbers."


NO_FLASH = frozenset({"grok"})
"""Architectures that llama.cpp runs without flash attention whatever is asked (``llama_init_from_model``, b11549)."""


def check(settings: Settings) -> None:
    """Refuse what llama.cpp refuses.

    Raises:
        ValueError: with one sentence that says which setting is impossible.
    """
    for name in ("context", "slots", "batch", "ubatch", "devices"):
        if getattr(settings, name) < 1:
            msg = f"`{name}` is {getattr(settings, name)}, but llama.cpp needs at least 1"
            raise ValueError(msg)
    for kind in (settings.kv_cache_k, settings.kv_cache_v):
        block(kind.upper())
    if is_quantized(settings.kv_cache_v.upper()) and not settings.flash_attention:
        msg = f"a V cache of type `{settings.kv_cache_v}` needs flash attention"
        raise ValueError(msg)
    if settings.backend not in BACKENDS:
        msg = f"unknown backend `{settings.backend}`: one of {', '.join(sorted(BACKENDS))}"
        raise ValueError(msg)
    if settings.split_mode not in SPLITS:
        msg = f"unknown split mode `{settings.split_mode}`: one of {', '.join(sorted(SPLITS))}"
        raise ValueError(msg)


def contexts(placement: Placement, cache: Cache) -> list[int]:
    """Bytes of caches and recurrent states on each GPU, then on the host."""
    sums = [0] * (placement.gpus + 1)
    for il in range(placement.model.all_layers):
        device = placement.layer(il) if placement.settings.kv_offload else placement.gpus
        sums[device] += cache.layer_bytes(il, host=device == placement.gpus)
    return sums


def output_bytes(facts: GgufFacts, settings: Settings, rules: Rules) -> int:
    """Bytes of the host's output buffer: logits and embeddings of one token per slot (``output_reserve``)."""
    model = model_of(facts)
    floats = facts.vocab if model.output_name is not None or rules.modern else 0
    if settings.embeddings:
        floats += model.embd
    return 4 * floats * settings.slots


def remarks(placement: Placement, *, exact: bool) -> tuple[str, ...]:
    """What makes this estimate a bound or an approximation; nothing when it is exact."""
    settings, arch = placement.settings, placement.model.arch
    notes = []
    if not exact:
        notes.append(f"llama.cpp's graph of this `{arch}` model is not known here: its compute buffer is a bound.")
    if settings.backend == "vulkan":
        notes.append("Vulkan is computed with CUDA's rules; its buffers differ by a few MiB.")
    if settings.split_mode == "row" and placement.gpus > 1:
        notes.append("With rows split over GPUs, the first one is taken to hold all caches and buffers.")
    return tuple(notes)


def estimate_draft(settings: Settings) -> Footprint | None:
    """Memory of the draft model that the same server loads."""
    if settings.draft is None:
        return None
    return estimate(settings.draft, replace(settings, draft=None, projector=None, lora=(), outputs=None))
