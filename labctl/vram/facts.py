"""What a model file's header says: all that the memory models may know of a model.

The facts are read by ``labctl.vram.metadata`` and consumed by the memory models. Nothing here or there is keyed by a
model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from labctl.values import dataclass

Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a model file."""

    name: str
    shape: tuple[int, ...]
    """GGUF: ggml order, ``ne[0]`` (the contiguous dimension) first. Safetensors: the file's own order."""
    type: str
    """GGUF: the ggml type's name in upper case (``F32``, ``Q4_K``, ``IQ4_NL``). Safetensors: ``BF16``, ``F8_E4M3``…"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFacts:
    """The header of a GGUF file (all parts of a split file merged).

    Attributes:
        metadata: key → value; arrays longer than 4096 elements (token lists) are left out and counted in
            ``array_lengths``. Types are not kept.
        tensors: every tensor, in file order.
        vocab: number of tokens, from the token list, ``<arch>.vocab_size`` or the shape of ``token_embd.weight``.
    """

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    vocab: int
    array_lengths: Mapping[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """``general.architecture``, e.g. ``llama``, ``qwen3moe``; empty when the file does not say."""
        return str(self.metadata.get("general.architecture", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class HfFacts:
    """A Hugging Face model folder: ``config.json`` and the headers of its safetensors files."""

    config: Mapping[str, object]
    tensors: tuple[Tensor, ...]
