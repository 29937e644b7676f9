"""One vLLM server's footprint, number by number."""

from __future__ import annotations

from labctl.values import dataclass
from labctl.vram.facts import HfFacts
from labctl.vram.footprint import DeviceBytes, Footprint, Step
from labctl.vram.metadata.layout import architecture_of
from labctl.vram.metadata.projector import vision_config
from labctl.vram.metadata.shape import Shape, read_shape
from labctl.vram.vllm.activation import CONTEXT, Peak, activation_peak, cuda_graphs, graphs_counted, non_torch
from labctl.vram.vllm.kv import Cache, kv_cache, value_bytes
from labctl.vram.vllm.settings import MIB, Quantisation, Settings
from labctl.vram.vllm.weights import Weights, dtype_bytes, weights

HOST_BYTES = 2048 * MIB
"""System RAM of the engine's processes, roughly: Python, CUDA libraries, tokenizer. Not measured here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything but the KV cache, per GPU, and the cache's geometry.

    ``beside`` is the part of ``graphs`` that vLLM allocates beyond what it asks for.
    """

    shape: Shape
    weights: Weights
    cache: Cache
    peak: Peak
    non_torch: int
    graphs: int
    beside: int
    model_len: int
    batched_tokens: int
    value_bytes: int

    @property
    def counted(self) -> int:
        """Bytes that vLLM itself takes out of what it asks for, before the KV cache."""
        return self.fixed - self.beside

    @property
    def fixed(self) -> int:
        """Bytes that must be there before the first token of KV cache."""
        return self.weights.model + self.weights.rope + self.peak.bytes + self.non_torch + self.graphs

    @property
    def sequence(self) -> int:
        """Bytes of KV cache of one sequence of full length."""
        return self.cache.sequence_bytes(self.model_len)

    @property
    def least(self) -> int:
        """The smallest budget with which vLLM starts: the KV cache must hold one sequence of full length."""
        return self.fixed + self.sequence


def estimate(facts: HfFacts, settings: Settings) -> Footprint:
    """Return what the server takes on each of its GPUs.

    With a budget, the KV cache is what the budget leaves (vLLM takes all of it); without, it holds
    ``settings.kv_sequences`` sequences of full length.

    Raises:
        MetadataError: ``config.json`` describes no language model.
    """
    parts = parts_of(facts, settings)
    cache = _cache_bytes(parts, settings)
    device = DeviceBytes(
        weights=parts.weights.model + parts.weights.rope,
        context=cache,
        compute=parts.peak.bytes,
        other=parts.non_torch + parts.graphs,
    )
    return Footprint(
        devices=(device,) * settings.tensor_parallel,
        host=HOST_BYTES,
        steps=(*steps(parts, settings), _cache_step(parts, settings, cache)),
        exact=_exact(facts, parts),
        notes=notes(facts, parts, settings),
    )


def parts_of(facts: HfFacts, settings: Settings) -> Parts:
    """Return all numbers that do not depend on a budget.

    Raises:
        MetadataError: ``config.json`` describes no language model.
    """
    shape = read_shape(facts.config)
    model_len = settings.max_model_len or shape.context or 2048
    batched = settings.batched_tokens(model_len)
    width = dtype_bytes(settings)
    graphs = cuda_graphs(shape, settings)
    return Parts(
        shape=shape,
        weights=weights(facts, shape, settings),
        cache=kv_cache(facts.config, shape, settings, width, batched),
        peak=activation_peak(facts.config, shape, settings, width, batched),
        non_torch=non_torch(settings),
        graphs=graphs,
        beside=0 if graphs_counted(settings) else graphs,
        model_len=model_len,
        batched_tokens=batched,
        value_bytes=value_bytes(settings, width),
    )


def steps(parts: Parts, settings: Settings) -> tuple[Step, ...]:
    """Return the derivation of everything but the size of the KV cache."""
    gpus = f" ÷ {settings.tensor_parallel} GPUs" if settings.tensor_parallel > 1 else ""
    stored = "the model's type" if parts.weights.quantisation is Quantisation.NONE else parts.weights.quantisation.value
    origin = "the files' headers" if parts.weights.exact else "config.json"
    count = f"{parts.weights.parameters:,} parameters ({origin}) in {stored}{gpus}"
    graphs = "none in eager mode" if settings.eager else f"{parts.shape.layers} layers"
    return (
        Step("weights", parts.weights.model, count, "vLLM model_executor/layers; measured within 0.5 %"),
        Step("rope table", parts.weights.rope, "positions · rotary width · bytes", "vLLM rotary_embedding/base.py"),
        Step(f"activations ({parts.peak.phase})", parts.peak.bytes, parts.peak.formula, "vLLM profile_run; fitted"),
        Step("non-torch", parts.non_torch, "CUDA libraries, NCCL", "measured, vLLM 0.11"),
        Step("CUDA graphs", parts.graphs, graphs, "measured, vLLM 0.11; uncertain by ±0.5 GiB"),
        Step("KV per token", parts.cache.token_bytes, _per_token(parts), "vLLM v1/kv_cache_interface.py"),
        Step("KV of one full sequence", parts.sequence, _sequence(parts), "vLLM kv_cache_planning.py"),
    )


def notes(facts: HfFacts, parts: Parts, settings: Settings) -> tuple[str, ...]:
    """Return what a reader must know to judge the numbers."""
    said = [f"beside these figures a CUDA context takes about {CONTEXT // MIB} MiB of each GPU"]
    if not architecture_of(parts.shape.type):
        said.append(
            f"the architecture {parts.shape.type!r} is not known: its weights were counted as a common decoder's"
        )
    if vision_config(facts.config):
        said.append("the vision encoder's peak depends on the largest image: set limit_mm or mm_item_tokens to match")
    if settings.quantization is Quantisation.BITSANDBYTES:
        said.append("bitsandbytes loads in 16 bits layer by layer: the peak while loading is not modelled")
    return tuple(said)


def _exact(facts: HfFacts, parts: Parts) -> bool:
    known = parts.weights.exact or bool(architecture_of(parts.shape.type))
    return known and not vision_config(facts.config)


def _cache_bytes(parts: Parts, settings: Settings) -> int:
    if settings.budget_bytes is not None:
        return max(0, settings.budget_bytes - parts.fixed)
    return parts.sequence * max(1, settings.kv_sequences)


def _cache_step(parts: Parts, settings: Settings, cache: int) -> Step:
    if settings.budget_bytes is not None:
        words = f"the budget of {settings.budget_bytes} B less all of the above"
    else:
        words = f"{max(1, settings.kv_sequences)} sequences of {parts.model_len} tokens"
    return Step("KV cache", cache, words, "vLLM gpu_worker.py, determine_available_memory")


def _per_token(parts: Parts) -> str:
    shape = parts.shape
    if shape.latent:
        return f"{shape.layers} layers · ({shape.latent} + {shape.rope}) · {parts.value_bytes} B (MLA)"
    full = shape.kinds.count("full")
    words = f"{full} layers · {shape.kv_heads} KV heads · ({shape.head} + {shape.value_head}) · {parts.value_bytes} B"
    return words if full == shape.layers else f"{words}; the other {shape.layers - full} layers do not grow"


def _sequence(parts: Parts) -> str:
    cache = parts.cache
    return f"{cache.sequence_blocks(parts.model_len)} blocks of {cache.block_tokens} tokens · {cache.block_bytes} B"
