"""Which tensors a model has, from its shape: GGUF names and extents by architecture.

The architectures are rows of ``labctl/data/models/layouts.json``, made of named parts; an extent there is a sum of
products of the symbols below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files

from labctl.values import dataclass
from labctl.vram.facts import Tensor
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.shape import RECURRENT, Shape

ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "ministral": "llama", "mistral3": "llama",
    "qwen2": "qwen2", "qwen2_vl": "qwen2vl", "qwen2_vl_text": "qwen2vl", "qwen2_5_vl": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl", "qwen3": "qwen3", "qwen3_moe": "qwen3moe", "qwen3_vl": "qwen3vl",
    "qwen3_vl_text": "qwen3vl", "qwen3_vl_moe": "qwen3vlmoe", "qwen3_vl_moe_text": "qwen3vlmoe",
    "qwen3_asr": "qwen3", "qwen3_asr_text": "qwen3",
    "qwen3_5": "qwen35", "qwen3_5_text": "qwen35", "qwen3_5_moe": "qwen35moe", "qwen3_5_moe_text": "qwen35moe",
    "qwen3_next": "qwen3next", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "gemma3_text": "gemma3",
    "phi3": "phi3", "gpt_oss": "gpt-oss", "deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2", "mamba": "mamba",
    "falcon_mamba": "mamba", "granite": "granite", "granitemoehybrid": "granitehybrid", "jamba": "jamba",
    "lfm2": "lfm2", "lfm2_moe": "lfm2moe", "bert": "bert", "xlm-roberta": "bert", "nomic_bert": "nomic-bert",
    "minicpmv": "llama", "smollm3": "llama",
}  # fmt: skip
"""``model_type`` of config.json → ``general.architecture`` (llama.cpp b11549 ``convert_hf_to_gguf.py``)."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What decides about tensors but is no part of ``Shape``: a stretched rope's factors, token types, positions."""

    rope_factors: bool = False
    token_types: int = 2
    positions: int = 0


def tensors(architecture: str, shape: Shape, extras: Extras | None = None) -> tuple[Tensor, ...]:
    """Return the tensors of an F16 GGUF file of this architecture and shape.

    Raises:
        MetadataError: the architecture is not in the table.
    """
    row = _table()["architectures"].get(architecture)
    if row is None:
        raise MetadataError(summary=f"the tensors of architecture {architecture!r} are not known")
    given = extras or Extras()
    symbols = _symbols(shape, given)
    flags = {
        "untied": not shape.tied,
        "rope_factors": given.rope_factors,
        "positions": given.positions > 0,
        "bias": shape.attention_bias,
        "direct_query": shape.query_latent == 0,
        "latent_query": shape.query_latent > 0,
    }
    listed = list(_tensors(row["head"], symbols, flags))
    layers: dict[tuple[bool, bool], list[Tensor]] = {}
    for index in range(shape.layers):
        recurrent, moe = shape.kinds[index] == RECURRENT, shape.moe[index]
        if (recurrent, moe) not in layers:
            own = {"recurrent": recurrent, "attention": not recurrent, "moe": moe, "dense": not moe}
            layers[recurrent, moe] = list(_tensors(row["layer"], symbols, {**flags, **own}))
        prefix = f"blk.{index}."
        listed.extend(Tensor(prefix + tensor.name, tensor.shape, tensor.type) for tensor in layers[recurrent, moe])
    return tuple(listed)


def architecture_of(model_type: str) -> str:
    """Return ``general.architecture`` for a ``model_type``; empty when the table does not have it."""
    return ARCHITECTURES.get(model_type, "")


def plain_type(name: str, dimensions: int) -> str:
    """Return a tensor's type in an F16 file, by its name inside its layer: F32 for what is small or sensitive."""
    small = dimensions < 2 or not name.endswith(".weight") or name.endswith("_norm.weight")
    return "F32" if small or name in _ALWAYS_F32 else "F16"


_ALWAYS_F32 = frozenset(
    {"ffn_gate_inp.weight", "position_embd.weight", "token_types.weight", "ssm_conv1d.weight", "shortconv.conv.weight"}
)


def _symbols(shape: Shape, extras: Extras) -> dict[str, int]:
    """The letters of ``layouts.json``."""
    return {
        "d": shape.hidden,
        "V": shape.vocab,
        "f": shape.ff,
        "h": shape.head,
        "H": shape.heads,
        "q": shape.heads * shape.head,
        "k": shape.kv_heads * shape.head,
        "v": shape.kv_heads * shape.value_head,
        "o": shape.heads * shape.value_head,
        "u": shape.value_head,
        "r": (shape.rope or shape.head) // 2,
        "E": shape.experts,
        "x": shape.expert_ff,
        "s": shape.shared_ff,
        "c": shape.latent,
        "a": shape.query_latent,
        "R": shape.rope,
        "N": shape.nope,
        "i": shape.inner,
        "n": shape.state,
        "w": shape.conv,
        "t": shape.rank,
        "g": shape.groups,
        "T": extras.token_types,
        "P": extras.positions,
    }


def _tensors(parts: Sequence[str], symbols: Mapping[str, int], flags: Mapping[str, bool]) -> Iterator[Tensor]:
    """The tensors of the parts whose conditions hold, without the layer's prefix."""
    for part in parts:
        name, _, condition = part.partition("?")
        for line in _table()["parts"][name] if not condition or flags[condition] else ():
            fields = line.split()
            if fields[-1].startswith("?") and not flags[fields.pop()[1:]]:
                continue
            extents = tuple(_extent(text, symbols) for text in fields[1:])
            yield Tensor(fields[0], extents, plain_type(fields[0], len(extents)))


def _extent(text: str, symbols: Mapping[str, int]) -> int:
    return sum(math.prod(_factor(factor, symbols) for factor in term.split("*")) for term in text.split("+"))


def _factor(text: str, symbols: Mapping[str, int]) -> int:
    numerator, _, divisor = text.partition("/")
    value = int(numerator) if numerator.isdigit() else symbols[numerator]
    return value // max(1, symbols[divisor]) if divisor else value


@cache
def _table() -> dict[str, dict[str, dict[str, list[str]]]]:
    text = files("labctl").joinpath("data", "models", "layouts.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, list[str]]]] = json.loads(text)
    return table
