"""Ollama's memory: several models of llama.cpp in one server, each loaded when asked for.

Source: Ollama ``envconfig/config.go``, ``server/sched.go``, docs/faq.mdx (August 2026): a model is loaded with
parallel · context tokens; when ``OLLAMA_MAX_LOADED_MODELS`` are loaded, the one idle longest goes. So the most that a
server can take is the sum of its largest models, as many as may be loaded at once. A model stays on one GPU when it
fits there, unless ``OLLAMA_SCHED_SPREAD`` is set; ``OLLAMA_GPU_OVERHEAD`` is left free on each GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from labctl.values import dataclass
from labctl.vram.facts import GgufFacts
from labctl.vram.footprint import DeviceBytes, Footprint, Step

DEFAULT_MODELS_PER_GPU = 3
MIB = 1024**2
PROCESS = 160 * MIB
"""What each loaded model beyond the first takes on its GPU as a process of its own (contexts, kernels): a stated
reserve, as large as the ledger's for the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Environment of one Ollama server.

    Attributes:
        context: ``OLLAMA_CONTEXT_LENGTH``: tokens per parallel request; by default it depends on the card, so set it.
        parallel: ``OLLAMA_NUM_PARALLEL``: requests at once per model.
        kv_cache: ``OLLAMA_KV_CACHE_TYPE``: ``f16``, ``q8_0`` or ``q4_0``; quantised only with flash attention.
        flash_attention: ``OLLAMA_FLASH_ATTENTION``.
        max_loaded: ``OLLAMA_MAX_LOADED_MODELS``; 0 takes Ollama's default of three per GPU.
        gpu_overhead: ``OLLAMA_GPU_OVERHEAD``: bytes left free on each GPU.
        spread: ``OLLAMA_SCHED_SPREAD``: every model over all GPUs.
        devices: number of GPUs of the server.
        gpu_bytes: bytes that one GPU has for models; 0 when not known: then every model is taken to fit on one.
        ubatch: physical batch in tokens.
    """

    context: int = 4096
    parallel: int = 1
    kv_cache: str = "f16"
    flash_attention: bool = True
    max_loaded: int = 0
    gpu_overhead: int = 0
    spread: bool = False
    devices: int = 1
    gpu_bytes: int = 0
    ubatch: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that the server may load; ``context`` overrides the server's, in tokens, when it is not 0."""

    name: str
    facts: GgufFacts
    context: int = 0
    embeddings: bool = False


def loaded_at_once(settings: Settings, models: int) -> int:
    """How many models may be loaded at once: as set, else three per GPU; never more than there are."""
    return min(models, settings.max_loaded or DEFAULT_MODELS_PER_GPU * max(1, settings.devices))


def estimate(models: Sequence[Model], settings: Settings) -> Footprint:
    """Return the most that the server takes: its largest models, as many as may be loaded at once.

    Raises:
        MetadataError: a model's facts lack what llama.cpp's memory model needs.
    """
    alone = [(model, estimate_one(model, settings, 1)) for model in models]
    ranked = sorted(alone, key=lambda pair: -pair[1].devices[0].total)
    chosen = ranked[: loaded_at_once(settings, len(models))]
    devices = [DeviceBytes(other=settings.gpu_overhead) for _ in range(max(1, settings.devices))]
    for model, single in chosen:
        _place(model, single, settings, devices)
    return Footprint(
        devices=tuple(devices),
        host=sum(footprint.host for _, footprint in chosen),
        steps=(*_overhead_step(settings), *(_step(model, footprint) for model, footprint in chosen)),
        exact=all(footprint.exact for _, footprint in chosen),
        notes=(f"{len(chosen)} of {len(models)} models may be loaded at once: the largest are counted",),
    )


def estimate_one(model: Model, settings: Settings, devices: int) -> Footprint:
    """Return the footprint of one model as Ollama starts llama.cpp for it."""
    engine = importlib.import_module("labctl.vram.llama_cpp")
    context = (model.context or settings.context) * settings.parallel
    cache = settings.kv_cache if settings.flash_attention else "f16"
    options = engine.Settings(
        context=context,
        slots=settings.parallel,
        kv_cache_k=cache,
        kv_cache_v=cache,
        flash_attention=settings.flash_attention,
        batch=settings.ubatch,
        ubatch=settings.ubatch,
        embeddings=model.embeddings,
        devices=devices,
    )
    footprint: Footprint = engine.estimate(model.facts, options)
    return footprint


def _place(model: Model, single: Footprint, settings: Settings, devices: list[DeviceBytes]) -> None:
    """Add a model to the emptiest GPU, or to all of them when it must be spread."""
    emptiest = min(range(len(devices)), key=lambda index: devices[index].total)
    needed = devices[emptiest].total + single.devices[0].total
    fits = not settings.gpu_bytes or needed <= settings.gpu_bytes
    if len(devices) == 1 or (fits and not settings.spread):
        devices[emptiest] = _with(devices[emptiest], single.devices[0])
        return
    for index, part in enumerate(estimate_one(model, settings, len(devices)).devices):
        devices[index] = _with(devices[index], part)


def _with(first: DeviceBytes, second: DeviceBytes) -> DeviceBytes:
    """Return a GPU's bytes with one more model."""
    further = PROCESS if first.weights and second.weights else 0
    return DeviceBytes(
        weights=first.weights + second.weights,
        context=first.context + second.context,
        compute=first.compute + second.compute,
        other=first.other + second.other + further,
    )


def _step(model: Model, footprint: Footprint) -> Step:
    part = footprint.devices[0]
    words = (
        f"weights {part.weights // MIB} + context {part.context // MIB} + compute {part.compute // MIB}"
        f" + other {part.other // MIB} MiB"
    )
    return Step(model.name, part.total, words, "llama.cpp's memory model")


def _overhead_step(settings: Settings) -> tuple[Step, ...]:
    if not settings.gpu_overhead:
        return ()
    return (Step("kept free", settings.gpu_overhead, "OLLAMA_GPU_OVERHEAD on each GPU", "Ollama envconfig/config.go"),)
