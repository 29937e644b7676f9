"""The bytes of a model's weights in vLLM, per GPU.

From the tensors of the files when there are any, otherwise from ``config.json`` by the layouts of
``labctl.vram.metadata.layout``. Sources: vLLM 0.33 ``model_executor/layers`` (``linear.py``,
``vocab_parallel_embedding.py``, ``quantization/``), vLLM 0.11 ``quantization/mxfp4.py``, checked against the weights of
measured servers (docs/vram-vllm.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from labctl.values import dataclass
from labctl.vram.facts import HfFacts, Tensor
from labctl.vram.metadata.layout import Extras, architecture_of, tensors
from labctl.vram.metadata.projector import vision_config, vision_tensors
from labctl.vram.metadata.safetensors import BITS, tensor_bytes
from labctl.vram.metadata.shape import Config, Shape, count, integer, text_config
from labctl.vram.vllm.settings import Quantisation, Settings


class Role(StrEnum):
    """How vLLM treats a tensor: which are quantised, which are split over GPUs."""

    EMBEDDING = "embedding"
    HEAD = "head"
    LINEAR = "linear"
    COPIED = "copied"
    EXPERT = "expert"
    KEY_VALUE = "key-value"
    SMALL = "small"
    VISION = "vision"


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter.

    ``type`` is what its file stores it in, empty when unknown; ``kept``: vLLM keeps that type whatever is asked for.
    """

    role: Role
    shape: tuple[int, ...]
    type: str = ""
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes per GPU.

    Attributes:
        model: all parameters.
        rope: the table of rotary embeddings.
        parameters: values in the whole model, all GPUs together.
        quantisation: what the weights are stored as.
        exact: whether the bytes come from the files' own headers.
    """

    model: int
    rope: int
    parameters: int
    quantisation: Quantisation
    exact: bool


_HF_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_BITS_PER_WEIGHT: Mapping[Quantisation, float] = {
    Quantisation.FP8: 8.0,
    Quantisation.AWQ: 4 + 20 / 128,
    Quantisation.GPTQ: 4 + 20 / 128,
    Quantisation.BITSANDBYTES: 4.5,
    Quantisation.MXFP4: 4.25,
}
"""AWQ and GPTQ: a 16-bit scale and a 4-bit zero per group of 128; bitsandbytes: a 32-bit scale per block of 64; MXFP4:
an 8-bit scale per block of 32."""


def weights(facts: HfFacts, shape: Shape, settings: Settings) -> Weights:
    """Return the bytes of weights and rope table per GPU."""
    quantisation = quantisation_of(facts.config, settings)
    width = dtype_bytes(settings)
    found = _from_files(facts.tensors, shape) if facts.tensors else _from_config(facts.config, shape)
    listed = tuple(found)
    parts = settings.tensor_parallel
    online = not isinstance(stored_quantisation(facts.config), Mapping)
    total = sum(_stored(weight, quantisation, width, online=online) / _share(weight, shape, parts) for weight in listed)
    return Weights(
        model=math.ceil(total) + absorbed_bytes(shape, quantisation, width) // parts,
        rope=rope_bytes(facts.config, shape, width, settings.release),
        parameters=sum(math.prod(weight.shape) for weight in listed),
        quantisation=quantisation,
        exact=bool(facts.tensors),
    )


def absorbed_bytes(shape: Shape, quantisation: Quantisation, width: int) -> int:
    """Bytes of MLA's up-projections, of which vLLM keeps a plain copy when they are quantised.

    Source: vLLM 0.33 ``mla_attention.py`` (``process_weights_after_loading``, ``split_kv_b_proj``).
    """
    if not shape.latent or quantisation in {Quantisation.NONE, Quantisation.MXFP4}:
        return 0
    return shape.layers * shape.heads * (shape.nope + shape.value_head) * shape.latent * width


def dtype_bytes(settings: Settings) -> int:
    """Bytes of a value; ``auto`` makes 16 bits of 32 (vLLM ``config/model.py``, ``_get_and_verify_dtype``)."""
    return 4 if settings.dtype in {"float32", "float"} else 2


def quantisation_of(config: Config, settings: Settings) -> Quantisation:
    """Return how the weights are stored: as asked for, else as ``quantization_config`` says."""
    if settings.quantization is not Quantisation.NONE:
        return settings.quantization
    stored = stored_quantisation(config)
    if not isinstance(stored, Mapping):
        return Quantisation.NONE
    method = str(stored.get("quant_method", "")).lower().replace("_", "-")
    known = {"fp8": Quantisation.FP8, "fbgemm-fp8": Quantisation.FP8, "modelopt": Quantisation.FP8}
    for name in Quantisation:
        if name.value != "none" and method.startswith(name.value):
            return name
    if method == "compressed-tensors":
        return _compressed(stored)
    return known.get(method, Quantisation.NONE)


def stored_quantisation(config: Config) -> object:
    """Return ``quantization_config``, wherever the model has it; None when its files are plain."""
    return config.get("quantization_config", text_config(config).get("quantization_config"))


def _compressed(stored: Mapping[str, object]) -> Quantisation:
    """compressed-tensors says the bits per group; 8-bit integers take as much as 8-bit floats."""
    groups = stored.get("config_groups")
    first: object = next(iter(groups.values()), {}) if isinstance(groups, Mapping) else {}
    described = first.get("weights", {}) if isinstance(first, Mapping) else {}
    bits = described.get("num_bits", 8) if isinstance(described, Mapping) else 8
    return Quantisation.GPTQ if bits == 4 else Quantisation.FP8


def rope_bytes(config: Config, shape: Shape, width: int, release: tuple[int, ...]) -> int:
    """Bytes of the cosine and sine table: positions · rotary width; four times the positions for multimodal rope.

    Source: vLLM 0.33 ``rotary_embedding/base.py`` (one table for all layers), ``mrope.py`` (``positions_factor``),
    ``gemma3.py`` (a second table for the sliding layers). Qwen3-VL and Qwen3.5 have the plain table in 0.33, four times
    as much in 0.19 (a log of April 2026); when it changed between them is not known.
    """
    if shape.type in {"bert", "xlm-roberta", "mamba", "falcon_mamba", "jamba", "gpt2"} or not shape.heads:
        return 0
    text = text_config(config)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    stretch = scaling if isinstance(scaling, Mapping) else {}
    positions = shape.context
    if stretch.get("rope_type", stretch.get("type")) == "yarn":
        factor, original = stretch.get("factor"), integer(stretch, "original_max_position_embeddings")
        if isinstance(factor, int | float) and 1 <= factor <= 1024 and original:
            positions = int(original * factor)
    wide = ("qwen2_vl", "qwen2_5_vl", "glm4v", "glm_ocr", *(("qwen3_vl", "qwen3_5") if release < (0, 33) else ()))
    multimodal = 4 if shape.type.startswith(wide) else 1
    tables = 2 if shape.type.startswith("gemma3") else 1
    return positions * multimodal * tables * (shape.rope or shape.head) * width


def _from_config(config: Config, shape: Shape) -> Iterator[Weight]:
    """The parameters by the layout of the architecture; unknown ones are taken for the most common decoder."""
    architecture = architecture_of(shape.type) or ("qwen3moe" if shape.qk_norm and shape.experts else "llama")
    extras = Extras(token_types=integer(config, "type_vocab_size", default=2), positions=_positions(shape))
    for tensor in tensors(architecture, shape, extras):
        yield Weight(_gguf_role(tensor), tensor.shape)
    for tensor in vision_tensors(vision_config(config)):
        yield Weight(Role.VISION if len(tensor.shape) == 2 else Role.SMALL, tensor.shape)
    yield from _audio(config)


def _positions(shape: Shape) -> int:
    return shape.context if shape.type in {"bert", "xlm-roberta"} else 0


def _audio(config: Config) -> Iterator[Weight]:
    """A Whisper-like encoder: four square and two wide matrices a layer (vLLM 0.33 ``qwen3_asr.py``)."""
    audio = config.get("audio_config")
    if not isinstance(audio, Mapping):
        return
    width, wide = integer(audio, "d_model"), integer(audio, "encoder_ffn_dim")
    layers, out = count(audio, "encoder_layers"), integer(audio, "output_dim")
    for _ in range(layers):
        yield Weight(Role.VISION, (width, 4 * width + 2 * wide))
    inner = integer(audio, "downsample_hidden_size", default=480)
    mels = integer(audio, "num_mel_bins", default=128)
    yield Weight(Role.SMALL, (inner, 9 * (1 + 2 * inner)))
    yield Weight(Role.VISION, (inner * -(-mels // 8), width))
    yield Weight(Role.VISION, (width, width + out))


def _gguf_role(tensor: Tensor) -> Role:
    name = tensor.name
    if name.startswith(("token_embd.", "position_embd", "token_types")):
        return Role.EMBEDDING
    if name == "output.weight":
        return Role.HEAD
    if len(tensor.shape) < 2 or "ffn_gate_inp" in name or "ssm_conv1d" in name:
        return Role.SMALL
    if "_exps." in name:
        return Role.EXPERT
    if name.endswith(("attn_kv_a_mqa.weight", "attn_q_a.weight")):
        return Role.COPIED
    return Role.KEY_VALUE if name.endswith(("attn_k.weight", "attn_v.weight")) else Role.LINEAR


def _from_files(listed: Sequence[Tensor], shape: Shape) -> Iterator[Weight]:
    """The files' tensors without layers beyond the model's (next-token prediction) and copies of tied weights."""
    for tensor in listed:
        name = tensor.name
        match = _HF_LAYER.search(name)
        vision = any(part in name for part in ("visual.", "vision", "audio_tower", "mm_projector"))
        if name.startswith("mtp.") or (match and not vision and int(match[1]) >= shape.layers):
            continue
        if shape.tied and name.endswith("lm_head.weight"):
            continue
        kept = tensor.type not in _FLOATS or "scale" in name.rsplit(".", 1)[-1]
        yield Weight(_hf_role(tensor, vision=vision), tensor.shape, tensor.type, kept=kept)


_HF_ROLES: tuple[tuple[tuple[str, ...], Role], ...] = (
    (("embed_tokens", "word_embeddings", "wte.", "position_embeddings"), Role.EMBEDDING),
    (("lm_head",), Role.HEAD),
    ((".experts.", "_exps.weight"), Role.EXPERT),
    (("mlp.gate.weight", "router.weight", "block_sparse_moe.gate.weight"), Role.SMALL),
    (("kv_a_proj", "q_a_proj"), Role.COPIED),
    (("k_proj", "v_proj"), Role.KEY_VALUE),
)
"""Parts of names → role; the first that fits."""


def _hf_role(tensor: Tensor, *, vision: bool) -> Role:
    name, small = tensor.name, len(tensor.shape) < 2
    if vision:
        return Role.VISION if len(tensor.shape) == 2 and name.endswith("weight") else Role.SMALL
    role = next((role for parts, role in _HF_ROLES if any(part in name for part in parts)), Role.LINEAR)
    return Role.SMALL if small and role in {Role.LINEAR, Role.COPIED, Role.KEY_VALUE} else role


def _share(weight: Weight, shape: Shape, parts: int) -> int:
    """Into how many parts a parameter is divided: small ones into none, KV heads no further than their number."""
    if weight.role in {Role.SMALL, Role.COPIED}:
        return 1
    return min(parts, max(1, shape.kv_heads)) if weight.role is Role.KEY_VALUE else parts


def _stored(weight: Weight, quantisation: Quantisation, width: int, *, online: bool) -> float:
    """Bytes of one parameter before it is split over GPUs; ``online``: vLLM itself quantises while it loads."""
    values = math.prod(weight.shape)
    if weight.kept:
        return _padded(weight, tensor_bytes(Tensor("", weight.shape, weight.type)), quantisation)
    plain = bool(weight.type) and not online
    if plain or not _is_quantised(weight, quantisation):
        return _vocabulary(weight, values) * width
    return _padded(weight, values * _BITS_PER_WEIGHT[quantisation] / 8, quantisation) + _scales(weight, quantisation)


def _is_quantised(weight: Weight, quantisation: Quantisation) -> bool:
    """Whether a method touches such a parameter; FP8 also takes the vision tower, MXFP4 the experts' matrices only."""
    if quantisation is Quantisation.NONE:
        return False
    if quantisation is Quantisation.MXFP4:
        return weight.role is Role.EXPERT and len(weight.shape) > 2
    vision = weight.role is Role.VISION and quantisation is Quantisation.FP8
    return vision or weight.role in {Role.LINEAR, Role.COPIED, Role.KEY_VALUE, Role.EXPERT}


def _scales(weight: Weight, quantisation: Quantisation) -> int:
    """FP8 keeps a 32-bit scale per output row."""
    return 4 * math.prod(weight.shape[1:]) if quantisation is Quantisation.FP8 else 0


def _vocabulary(weight: Weight, values: int) -> int:
    """Embeddings and output are padded to a multiple of 64 tokens (``vocab_parallel_embedding.py``)."""
    if weight.role not in {Role.EMBEDDING, Role.HEAD} or len(weight.shape) != 2:
        return values
    rows = max(weight.shape)
    return values // rows * (-(-rows // 64) * 64)


def _padded(weight: Weight, stored: float, quantisation: Quantisation) -> float:
    """MXFP4 experts get rows of a multiple of 256 values.

    Measured: gpt-oss-20b takes 13.47 GiB on an H100 (vLLM 0.11), which its 2880-wide rows explain when padded to 3072.
    """
    if quantisation is not Quantisation.MXFP4 or weight.role is not Role.EXPERT or len(weight.shape) < 3:
        return stored
    row = weight.shape[2] * 32 if weight.type else weight.shape[0]
    return stored * (-(-row // 256) * 256) / row if row else stored


__all__ = ["BITS", "Role", "Weight", "Weights", "dtype_bytes", "quantisation_of", "rope_bytes", "weights"]
