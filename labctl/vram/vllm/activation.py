"""The peak of activations while vLLM profiles itself, and what its process takes beside.

The profile run is vLLM 0.33 ``v1/worker/gpu_model_runner.py`` (``profile_run``): the vision encoder on its largest
items, one batch through the model, then the sampler on every sequence. The constants are fitted to the logs of
docs/vram-vllm.md.
"""

from __future__ import annotations

from labctl.values import dataclass
from labctl.vram.metadata.projector import vision_config
from labctl.vram.metadata.shape import Config, Shape, integer, positive
from labctl.vram.vllm.settings import MIB, Runner, Settings

SAMPLER_BYTES = 38
"""Bytes per sequence and token of the vocabulary: logits in 16 and 32 bits, their sorted copy with 64-bit indices,
probabilities and sums. Four runs of vLLM 0.11 give 37.5 to 39.6 when nothing else is subtracted."""
NON_TORCH_SINGLE = 133 * MIB
"""Measured 10 to 164 MiB, 133 in vLLM 0.11."""
NON_TORCH_PARALLEL = 558 * MIB
"""NCCL buffers; measured 553 and 563 MiB with two GPUs in vLLM 0.11."""
CONTEXT = 450 * MIB
"""A CUDA context, outside of what vLLM counts: its own figures begin after it exists."""
GRAPH_LAYER = 4 * MIB
GRAPH_LAYER_EXPERTS = 16 * MIB
"""CUDA graphs per layer: measured 102 MiB for 28 dense layers, 399 MiB for 24 with experts."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes per GPU at the worst moment, and which phase that is."""

    bytes: int
    phase: str
    formula: str


def activation_peak(config: Config, shape: Shape, settings: Settings, width: int, batched_tokens: int) -> Peak:
    """Return the largest phase of the profile run."""
    text = max(
        (_sampler(shape, settings, width, batched_tokens), _forward(shape, settings, width, batched_tokens)),
        key=lambda peak: peak.bytes,
    )
    encoder, kept = _encoder(config, shape, settings, width, batched_tokens)
    if encoder.bytes > text.bytes + kept:
        return encoder
    words = f" + {kept} B of encoder outputs" if kept else ""
    return Peak(text.bytes + kept, text.phase, text.formula + words)


def non_torch(settings: Settings) -> int:
    """Bytes that CUDA libraries and NCCL take on one GPU."""
    return NON_TORCH_SINGLE if settings.tensor_parallel == 1 else NON_TORCH_PARALLEL


def cuda_graphs(shape: Shape, settings: Settings) -> int:
    """Bytes of captured graphs on one GPU, roughly; none in eager mode."""
    if settings.eager:
        return 0
    return sum(GRAPH_LAYER_EXPERTS if moe else GRAPH_LAYER for moe in shape.moe)


def graphs_counted(settings: Settings) -> bool:
    """Whether vLLM takes the graphs out of its budget; older versions put them on top.

    From 0.21 on, ``VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS`` is on by default (vLLM ``envs.py``).
    """
    return settings.release >= (0, 21)


def _sampler(shape: Shape, settings: Settings, width: int, batched_tokens: int) -> Peak:
    """Sampling one token for every sequence, beside two copies of the batch's hidden states."""
    if settings.runner is Runner.POOLING:
        return Peak(0, "sampler", "")
    sequences = min(settings.sequences, batched_tokens)
    total = SAMPLER_BYTES * sequences * shape.vocab + 2 * batched_tokens * shape.hidden * width
    states = f"2 · {batched_tokens} · {shape.hidden} · {width}"
    words = f"{SAMPLER_BYTES} B · {sequences} sequences · {shape.vocab} tokens + {states}"
    return Peak(total, "sampler", words)


def _forward(shape: Shape, settings: Settings, width: int, batched_tokens: int) -> Peak:
    """One batch through a layer: gate, up and their product beside four copies of the hidden states."""
    wide = shape.ff
    if shape.experts:
        wide = max(wide if not all(shape.moe) else 0, shape.experts_used * (shape.expert_ff + shape.hidden // 3))
    wide += shape.shared_ff
    queries = 2 * shape.heads * shape.head
    per_token = max(3 * wide, queries) // settings.tensor_parallel + 4 * shape.hidden
    words = f"{batched_tokens} tokens · ({per_token - 4 * shape.hidden} + 4 · {shape.hidden}) · {width}"
    return Peak(batched_tokens * per_token * width, "feed-forward", words)


def item_tokens(config: Config, settings: Settings) -> int:
    """Return the tokens of the largest image: as stated, by the family's pixel limit, or by the encoder's size."""
    vision = vision_config(config)
    if settings.mm_item_tokens:
        return settings.mm_item_tokens
    patch, merge = positive(vision, "patch_size", default=14), positive(vision, "spatial_merge_size")
    kind = str(vision.get("model_type", config.get("model_type", "")))
    if kind.startswith("glm_ocr"):
        return 9_633_792 // (patch * merge) ** 2 // positive(vision, "temporal_patch_size", default=2)
    if kind.startswith(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")) or merge > 1:
        return 16_384
    side = integer(vision, "image_size", default=448)
    return (side // patch) ** 2


def _encoder(config: Config, shape: Shape, settings: Settings, width: int, batched_tokens: int) -> tuple[Peak, int]:
    """Return the vision encoder's peak on one batch of largest items, and the bytes of its outputs that stay."""
    vision = vision_config(config)
    off = not any(settings.limit_mm.get(modality, 1) for modality in ("image", "video"))
    hidden = integer(vision, "hidden_size", "embed_dim", "width")
    if not vision or off or not hidden:
        return Peak(0, "vision encoder", ""), 0
    tokens = max(1, item_tokens(config, settings))
    items = max(1, max(batched_tokens, tokens) // tokens)
    merge = positive(vision, "spatial_merge_size")
    patches = items * tokens * merge * merge
    ff = integer(vision, "intermediate_size", default=4 * hidden)
    pixels = 3 * integer(vision, "patch_size", default=14) ** 2 * integer(vision, "temporal_patch_size", default=1)
    per_patch = (3 * hidden + max(5 * hidden, 2 * ff)) * width + 2 * pixels * width
    stack = vision.get("deepstack_visual_indexes")
    kept = items * tokens * shape.hidden * width * (1 + len(stack) if isinstance(stack, list) else 1)
    words = f"{items} items · {tokens} tokens · {merge}² patches · {per_patch} B"
    return Peak(patches * per_patch + kept, "vision encoder", words), kept
