"""Vision encoders and their projectors: the tensors of an ``mmproj`` file, and of a vision tower in general.

Sources: llama.cpp b11549 ``tools/mtmd/clip.cpp`` and ``convert_hf_to_gguf.py`` (names), transformers 4.57
``modeling_qwen2_5_vl.py``, ``modeling_qwen3_vl.py`` and vLLM 0.33 ``glm_ocr.py`` (extents); MiniCPM-V 2.5:
``tools/mtmd/legacy-models/minicpmv-convert-image-encoder-to-gguf.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labctl.vram.facts import GgufFacts, Tensor
from labctl.vram.metadata.layout import plain_type
from labctl.vram.metadata.shape import Config, count, integer

_MINICPM = {
    "model_type": "minicpmv", "hidden_size": 1152, "depth": 26, "intermediate_size": 4304, "num_heads": 16,
    "patch_size": 14, "out_hidden_size": 4096, "positions": 4900, "queries": 96, "image_size": 448,
}  # fmt: skip
_NAMES = {"qwen2_5_vl": "qwen2.5vl_merger", "qwen3_vl": "qwen3vl_merger", "glm_ocr_vision": "glm4v"}


def vision_config(config: Config) -> Config:
    """Return the vision tower's part of ``config.json``; empty when the model has none."""
    vision = config.get("vision_config")
    return vision if isinstance(vision, Mapping) else {}


def projector_facts(projector: str, vision: Config) -> GgufFacts | None:
    """Return the header of the model's ``mmproj`` file in F16, or None when its layout is not known."""
    if projector == "minicpmv-2.5":
        vision, tensors = _MINICPM, tuple(_minicpm(_MINICPM))
    else:
        tensors = vision_tensors(vision)
    if not tensors:
        return None
    return GgufFacts(metadata=_keys(vision), tensors=tensors, vocab=0)


def vision_tensors(vision: Config) -> tuple[Tensor, ...]:
    """Return the tensors of a vision tower with its merger, by GGUF names; none when its kind is not known."""
    kind = str(vision.get("model_type", ""))
    if kind.startswith("qwen2_5_vl"):
        return tuple(_qwen25(vision))
    if kind.startswith(("qwen3_vl", "qwen3_5")):
        return tuple(_qwen3(vision))
    if kind == "glm_ocr_vision":
        return tuple(_glm_ocr(vision))
    return ()


def _keys(vision: Config) -> dict[str, str | int | bool]:
    kind = str(vision.get("model_type", ""))
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "resampler" if kind == "minicpmv" else _NAMES.get(kind, kind),
        "clip.vision.block_count": integer(vision, "depth"),
        "clip.vision.embedding_length": integer(vision, "hidden_size"),
        "clip.vision.feed_forward_length": integer(vision, "intermediate_size"),
        "clip.vision.attention.head_count": integer(vision, "num_heads"),
        "clip.vision.patch_size": integer(vision, "patch_size"),
        "clip.vision.image_size": integer(vision, "image_size", default=560),
        "clip.vision.projection_dim": integer(vision, "out_hidden_size"),
        "clip.vision.spatial_merge_size": integer(vision, "spatial_merge_size", default=1),
    }


def _tensor(name: str, *extents: int) -> Tensor:
    return Tensor(name, extents, "F32" if "norm" in name or ".ln" in name else plain_type(name, len(extents)))


def _linear(name: str, rows: int, columns: int, *, bias: bool = True) -> Iterator[Tensor]:
    """A matrix from ``rows`` to ``columns`` values, with its bias."""
    yield _tensor(f"{name}.weight", rows, columns)
    if bias:
        yield _tensor(f"{name}.bias", columns)


def _norm(name: str, width: int, *, bias: bool = True) -> Iterator[Tensor]:
    yield _tensor(f"{name}.weight", width)
    if bias:
        yield _tensor(f"{name}.bias", width)


def _patches(vision: Config, width: int, *, bias: bool) -> Iterator[Tensor]:
    """The patch embedding; its two frames are stored apart."""
    patch = integer(vision, "patch_size")
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1")[: integer(vision, "temporal_patch_size", default=1)]:
        yield Tensor(name, (patch, patch, 3, width), "F16")
    if bias:
        yield _tensor("v.patch_embd.bias", width)


def _qwen25(vision: Config) -> Iterator[Tensor]:
    width, ff, out = (integer(vision, name) for name in ("hidden_size", "intermediate_size", "out_hidden_size"))
    merged = width * integer(vision, "spatial_merge_size", default=2) ** 2
    yield from _patches(vision, width, bias=False)
    for index in range(count(vision, "depth")):
        block = f"v.blk.{index}."
        yield from (_tensor(f"{block}{name}.weight", width) for name in ("ln1", "ln2"))
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _linear(block + name, width, width)
        yield from _linear(block + "ffn_gate", width, ff)
        yield from _linear(block + "ffn_up", width, ff)
        yield from _linear(block + "ffn_down", ff, width)
    yield from _norm("v.post_ln", width, bias=False)
    yield from _linear("mm.0", merged, merged)
    yield from _linear("mm.2", merged, out)


def _qwen3(vision: Config) -> Iterator[Tensor]:
    width, ff, out = (integer(vision, name) for name in ("hidden_size", "intermediate_size", "out_hidden_size"))
    merged = width * integer(vision, "spatial_merge_size", default=2) ** 2
    yield from _patches(vision, width, bias=True)
    yield Tensor("v.position_embd.weight", (width, integer(vision, "num_position_embeddings", default=2304)), "F32")
    for index in range(count(vision, "depth")):
        block = f"v.blk.{index}."
        yield from _norm(block + "ln1", width)
        yield from _norm(block + "ln2", width)
        yield from _linear(block + "attn_qkv", width, 3 * width)
        yield from _linear(block + "attn_out", width, width)
        yield from _linear(block + "ffn_up", width, ff)
        yield from _linear(block + "ffn_down", ff, width)
    yield from _norm("v.post_ln", width)
    yield from _linear("mm.0", merged, merged)
    yield from _linear("mm.2", merged, out)
    stack = vision.get("deepstack_visual_indexes")
    for index in stack if isinstance(stack, list) else ():
        yield from _norm(f"v.deepstack.{index}.norm", merged)
        yield from _linear(f"v.deepstack.{index}.fc1", merged, merged)
        yield from _linear(f"v.deepstack.{index}.fc2", merged, out)


def _glm_ocr(vision: Config) -> Iterator[Tensor]:
    """The merger's inner width is ``out_hidden_size · in_channels`` (vLLM ``glm_ocr.py``, ``GlmOcrPatchMerger``)."""
    width, ff, out = (integer(vision, name) for name in ("hidden_size", "intermediate_size", "out_hidden_size"))
    head = width // max(1, integer(vision, "num_heads"))
    merge = integer(vision, "spatial_merge_size", default=2)
    yield from _patches(vision, width, bias=True)
    for index in range(count(vision, "depth")):
        block = f"v.blk.{index}."
        yield from (_tensor(f"{block}{name}.weight", width) for name in ("ln1", "ln2"))
        yield from (_tensor(f"{block}{name}.weight", head) for name in ("attn_q_norm", "attn_k_norm"))
        yield from _linear(block + "attn_qkv", width, 3 * width)
        yield from _linear(block + "attn_out", width, width)
        for name, rows, columns in (("ffn_gate", width, ff), ("ffn_up", width, ff), ("ffn_down", ff, width)):
            yield from _linear(block + name, rows, columns)
    yield from _norm("v.post_ln", width, bias=False)
    yield Tensor("mm.patch_merger.weight", (merge, merge, width, out), "F16")
    yield _tensor("mm.patch_merger.bias", out)
    inner = out * integer(vision, "in_channels", default=3)
    yield from _linear("mm.model.fc", out, out, bias=False)
    yield from _norm("mm.post_norm", out)
    for name, rows, columns in (("mm.gate", out, inner), ("mm.up", out, inner), ("mm.down", inner, out)):
        yield from _linear(name, rows, columns, bias=False)


def _minicpm(vision: Config) -> Iterator[Tensor]:
    width, ff, out = (integer(vision, name) for name in ("hidden_size", "intermediate_size", "out_hidden_size"))
    positions, queries = integer(vision, "positions"), integer(vision, "queries")
    yield from _patches(vision, width, bias=True)
    yield Tensor("v.position_embd.weight", (width, positions), "F32")
    for index in range(count(vision, "depth")):
        block = f"v.blk.{index}."
        yield from _norm(block + "ln1", width)
        yield from _norm(block + "ln2", width)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _linear(block + name, width, width)
        yield from _linear(block + "ffn_down", width, ff)
        yield from _linear(block + "ffn_up", ff, width)
    yield from _norm("v.post_ln", width)
    yield _tensor("resampler.query", out, queries)
    yield _tensor("resampler.proj.weight", out, out)
    yield _tensor("resampler.kv.weight", width, out)
    for name in ("attn.q", "attn.k", "attn.v", "attn.out"):
        yield from _linear(f"resampler.{name}", out, out)
    for name in ("ln_q", "ln_kv", "ln_post"):
        yield from _norm(f"resampler.{name}", out)
    yield _tensor("resampler.pos_embd_k", out, positions)
