"""llama-quantize's mixes: which type each tensor gets in a ``Q4_K_M`` file and its relatives.

Source: llama.cpp b11549 ``src/llama-quant.cpp`` (``tensor_allows_quantization``, ``llama_tensor_get_type_impl``,
``tensor_type_fallback``) for files made without ``--tensor-type``; ``_L`` and ``_XL`` variants are bartowski's habit of
storing embeddings and output as Q8_0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from labctl.values import dataclass
from labctl.vram.facts import Tensor
from labctl.vram.metadata.ggml_types import BY_NAME
from labctl.vram.metadata.shape import LISTS_KV_HEADS, RECURRENT, Shape

DEFAULTS: Mapping[str, str] = {
    **{name: name for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K", "IQ4_NL")},
    **{name: name for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ3_S", "IQ4_XS", "TQ1_0", "TQ2_0")},
    "Q2_K": "Q2_K", "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q3_K": "Q3_K",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q4_K": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q5_K": "Q5_K",
    "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "MXFP4": "MXFP4",
    "Q4_K_L": "Q4_K", "Q5_K_L": "Q5_K", "Q6_K_L": "Q6_K", "Q3_K_XL": "Q3_K", "Q2_K_L": "Q2_K",
}  # fmt: skip
"""Name of a mix → the type that most of its tensors get (``llama_ftype_get_default_type``)."""

_SAME: Mapping[str, str] = {
    "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "Q4_K_L": "Q4_K_M", "Q5_K_L": "Q5_K_M", "Q6_K_L": "Q6_K",
    "Q3_K_XL": "Q3_K_L", "Q2_K_L": "Q2_K",
}  # fmt: skip
_LARGE = frozenset({"Q4_K_L", "Q5_K_L", "Q6_K_L", "Q3_K_XL", "Q2_K_L"})
_TINY = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ2_S", "IQ2_M", "IQ1_M"})
_NEVER = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj|^position_embd|^token_types|ssm_conv1d"
    r"|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|time_mix_|attn_rel_b\.weight|\.position_embd|\.patch_embd"
)
_CATEGORIES = (
    ("attn_qkv.weight", "qkv"), ("attn_kv_b.weight", "kv_b"), ("attn_v.weight", "v"), ("attn_k.weight", "k"),
    ("attn_q.weight", "q"), ("attn_output.weight", "attn_output"), ("ffn_up", "up"), ("ffn_gate", "gate"),
    ("ffn_down", "down"),
)  # fmt: skip
_FALLBACK: Mapping[str, str] = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_BLOCK = re.compile(r"^blk\.(\d+)\.")


@dataclass(slots=True)
class _State:
    """What llama-quantize counts while it goes through the tensors."""

    mix: str
    shape: Shape
    falcon: bool
    imatrix: bool
    tied: bool
    values: int
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def gqa(self) -> int:
        """Heads per KV head of the first layer, which is what llama-quantize looks at; 0 where that layer has none."""
        if self.shape.type in LISTS_KV_HEADS and self.shape.kinds[0] == RECURRENT:
            return 0
        return self.shape.heads // self.shape.kv_heads if self.shape.kv_heads else 0

    def next(self, category: str) -> int:
        index = self.counts.get(category, 0)
        self.counts[category] = index + 1
        return index


def quantise(tensors: Sequence[Tensor], mix: str, shape: Shape, *, imatrix: bool = False) -> tuple[Tensor, ...]:
    """Return an F16 file's tensors with the types that ``llama-quantize`` gives them.

    Args:
        tensors: as ``layout.tensors`` makes them.
        mix: upper case, one of ``DEFAULTS``.
        shape: decides about layers, query groups and experts.
        imatrix: whether an importance matrix was used.

    Raises:
        KeyError: the mix is not known.
    """
    default = DEFAULTS[mix]
    if default in {"F32", "F16", "BF16"}:
        return tuple(_with(t, default if t.type == "F16" else t.type) for t in tensors)
    categories = {tensor.name: category(tensor.name) for tensor in tensors}
    state = _State(
        mix=_SAME.get(mix, mix),
        shape=shape,
        falcon=shape.type == "falcon",
        imatrix=imatrix,
        tied="output" not in categories.values(),
        values=sum(found in {"v", "qkv", "kv_b"} for found in categories.values()),
    )
    typed: dict[str, str] = {}
    for tensor in sorted(tensors, key=_order):
        typed[tensor.name] = _choose(tensor, categories[tensor.name], default, mix, state)
    return tuple(_with(tensor, typed[tensor.name]) for tensor in tensors)


def category(name: str) -> str:
    """Return llama-quantize's category of a tensor; empty for "other"."""
    if name == "output.weight":
        return "output"
    if name in {"token_embd.weight", "per_layer_token_embd.weight"}:
        return "embedding"
    return next((found for part, found in _CATEGORIES if part in name), "")


def _with(tensor: Tensor, kind: str) -> Tensor:
    return tensor if tensor.type == kind else Tensor(tensor.name, tensor.shape, kind)


def _order(tensor: Tensor) -> tuple[int, str]:
    """llama.cpp's order of tensors: by layer, then by name (``weight_name_comparer``)."""
    match = _BLOCK.match(tensor.name)
    return (int(match[1]) if match else -1), tensor.name


def _choose(tensor: Tensor, found: str, default: str, mix: str, state: _State) -> str:
    if len(tensor.shape) < 2 or not tensor.name.endswith("weight") or _NEVER.search(tensor.name):
        return tensor.type
    if mix in _LARGE and found in {"output", "embedding"}:
        return "Q8_0"
    return _fit(tensor, _mixed(tensor, found, default, state))


def _fit(tensor: Tensor, kind: str) -> str:
    """Return a type whose blocks divide the tensor's rows."""
    if tensor.shape[0] % BY_NAME[kind].block == 0:
        return kind
    other = _FALLBACK.get(kind, "F16")
    return other if tensor.shape[0] % BY_NAME[other].block == 0 else "F16"


def _mixed(tensor: Tensor, found: str, default: str, state: _State) -> str:
    if found == "output" or (state.tied and found == "embedding"):
        return _output(tensor, default, state)
    if state.mix == "MXFP4":
        return "MXFP4" if len(tensor.shape) > 2 and tensor.shape[2] > 1 else "Q8_0"
    if found == "embedding":
        return _embedding(default, state.mix)
    rule = _tiny if state.mix in _TINY else _RULES.get(found)
    return rule(tensor, found, default, state) if rule else default


def _output(tensor: Tensor, default: str, state: _State) -> str:
    if state.mix == "MXFP4" or state.falcon or tensor.shape[0] % BY_NAME[default].block:
        return "Q8_0"
    if state.mix in _TINY | {"IQ3_XXS"}:
        return "Q5_K"
    return default if default == "Q8_0" else "Q6_K"


def _embedding(default: str, mix: str) -> str:
    if mix in {"IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"}:
        return "Q2_K"
    if mix in {"IQ2_S", "IQ2_M", "IQ3_XXS"}:
        return "IQ3_S"
    return "Q4_K" if mix in {"TQ1_0", "TQ2_0"} else default


def _tiny(_: Tensor, found: str, default: str, state: _State) -> str:
    """The mixes of about two bits."""
    two = state.mix in {"IQ2_S", "IQ2_M"}
    if found in {"v", "qkv", "kv_b"}:
        state.next("v")
        return "Q4_K" if state.gqa >= 4 or state.shape.experts >= 4 else "IQ3_S" if two else "Q2_K"
    if found == "k" and state.shape.experts == 8:
        return "Q4_K"
    if found == "down":
        return ("IQ3_S" if two else "Q2_K") if state.next("down") < state.shape.layers // 8 else default
    if found == "attn_output":
        if state.shape.experts == 8:
            return "Q5_K"
        return "IQ2_XXS" if state.mix in {"IQ1_S", "IQ1_M"} else "IQ3_S" if two else default
    return default


def _value(_: Tensor, __: str, default: str, state: _State) -> str:
    index, mix = state.next("v"), state.mix
    wide = state.gqa >= 4
    chosen = {
        "Q2_K": "Q4_K" if wide else "Q3_K",
        "Q2_K_S": "Q4_K" if wide else default,
        "IQ3_XXS": "Q4_K" if wide else default if state.imatrix else "IQ3_S",
        "IQ3_XS": "Q4_K" if wide else default,
        "IQ3_S": "Q4_K" if wide else default,
        "IQ3_M": "Q4_K",
        "Q3_K_M": "Q5_K" if index < 2 else "Q4_K",
        "Q3_K_L": "Q5_K",
        "IQ4_NL": "Q5_K" if wide else default,
        "IQ4_XS": "Q5_K" if wide else default,
        "Q4_K_M": "Q6_K" if _more_bits(index, state.values) else default,
        "Q5_K_M": "Q6_K" if _more_bits(index, state.values) else default,
        "Q4_K_S": "Q5_K" if index < 4 else default,
    }.get(mix, default)
    if _is_70b(state.shape) and chosen in {"Q3_K", "Q4_K"}:
        chosen = "Q5_K"
    return "Q8_0" if state.shape.experts == 8 else chosen


def _is_70b(shape: Shape) -> bool:
    """``LLM_TYPE_70B``: 80 layers of the llama or qwen2 architecture with fewer KV heads than heads."""
    return shape.layers == 80 and shape.type in {"llama", "qwen2", "mistral"} and shape.heads != shape.kv_heads


def _attention_output(_: Tensor, __: str, default: str, state: _State) -> str:
    mix = state.mix
    if state.falcon:
        return "Q4_K" if mix == "Q3_K_L" else default
    if state.shape.experts == 8:
        small = {
            "Q2_K",
            "IQ3_XS",
            "IQ3_XXS",
            "Q3_K_S",
            "Q3_K_M",
            "IQ4_NL",
            "Q4_K_S",
            "Q4_K_M",
            "IQ3_S",
            "IQ3_M",
            "IQ4_XS",
        }
        return "Q5_K" if mix in small else default
    more = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
    return more.get(mix, default)


def _down(tensor: Tensor, _: str, default: str, state: _State) -> str:
    index, layers, mix = _layer(tensor, state, "down"), state.shape.layers, state.mix
    early, more = index < layers // 8, _more_bits(index, layers)
    first = index < layers // 16
    return {
        "Q2_K": "Q3_K",
        "Q2_K_S": "Q4_K" if early else default,
        "IQ3_XXS": default if state.imatrix else "Q4_K" if early else "Q3_K",
        "Q3_K_M": "Q5_K" if first else "Q4_K" if more or not state.falcon else "Q3_K",
        "IQ3_M": "Q4_K" if early or (state.shape.experts == 8 and more) else default,
        "Q3_K_L": "Q4_K" if state.falcon else "Q5_K",
        "Q4_K_M": _falcon_down(first=first, more=more) if state.falcon else "Q6_K" if more else default,
        "IQ4_NL": "Q5_K" if early and not state.imatrix else default,
        "IQ4_XS": "Q5_K" if early and not state.imatrix else default,
        "Q5_K_M": "Q6_K" if more else default,
        "Q4_K_S": "Q5_K" if early and not state.falcon else default,
        "Q4_0": "Q4_1" if early and state.imatrix else default,
        "Q5_0": "Q5_1" if early and state.imatrix else default,
    }.get(mix, default)


def _falcon_down(*, first: bool, more: bool) -> str:
    return "Q6_K" if first else "Q5_K" if more else "Q4_K"


def _query_key(_: Tensor, found: str, default: str, state: _State) -> str:
    if found == "k" and state.shape.experts == 8:
        return "Q8_0"
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(state.mix, default)


def _gate_up(tensor: Tensor, found: str, default: str, state: _State) -> str:
    index, layers = _layer(tensor, state, found), state.shape.layers
    return "IQ3_XXS" if state.mix == "IQ3_XS" and layers // 8 <= index < 7 * layers // 8 else default


def _more_bits(index: int, count: int) -> bool:
    """``use_more_bits``: the first and last eighth, and every third layer between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _layer(tensor: Tensor, state: _State, counter: str) -> int:
    """The layer's number: by the tensor's name for a mixture of experts, else by counting."""
    counted = state.next(counter)
    match = _BLOCK.match(tensor.name)
    return int(match[1]) if match and state.shape.experts > 1 else counted


_RULES: Mapping[str, Callable[[Tensor, str, str, _State], str]] = {
    **dict.fromkeys(("v", "qkv", "kv_b"), _value),
    **dict.fromkeys(("q", "k"), _query_key),
    **dict.fromkeys(("gate", "up"), _gate_up),
    "attn_output": _attention_output,
    "down": _down,
}
