"""A small bert model with fixed pseudo-random weights and mean pooling, so that real llama.cpp serves embeddings."""

from __future__ import annotations

import hashlib
import string
from typing import Final

from labctl.tiny.gguf_writer import Tensor, Value, constant, write

_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS: Final = (*string.ascii_lowercase, *string.digits, *string.punctuation)
_TOKENS: Final = (*_SPECIAL, *("\u2581" + letter for letter in _LETTERS), *_LETTERS)
"""GGUF marks the start of a word with U+2581 and leaves out WordPiece's ``##``."""
_NORMAL, _CONTROL = 1, 3
_HEADS: Final = 4
_LAYERS: Final = 2
_POOLING_MEAN: Final = 1
_SMALL, _LARGE = 0x3D, 0x3F
"""Top bytes of floats whose magnitude lies in 1/32 … 1/8 and in 1/2 … 2."""


def embedding(seed: int = 0, *, dimensions: int = 64, context: int = 512) -> bytes:
    """Return a GGUF file of a bert model that turns any text into a vector. Deterministic in its arguments.

    Args:
        seed: chooses the weights; two seeds are two models.
        dimensions: length of the vectors; a multiple of 8 (four heads of an even size).
        context: longest text, in tokens (one per letter).

    Raises:
        ValueError: ``dimensions`` is not a positive multiple of 8.
    """
    if dimensions < 1 or dimensions % (2 * _HEADS):
        message = f"dimensions must be a positive multiple of {2 * _HEADS}, not {dimensions}"
        raise ValueError(message)
    return write(_metadata(seed, dimensions, context), _tensors(seed, dimensions, context))


def _metadata(seed: int, dimensions: int, context: int) -> dict[str, Value]:
    return {
        "general.architecture": "bert",
        "general.name": f"tiny-embedding-{seed}",
        "general.file_type": 0,
        "bert.context_length": context,
        "bert.embedding_length": dimensions,
        "bert.block_count": _LAYERS,
        "bert.feed_forward_length": 2 * dimensions,
        "bert.attention.head_count": _HEADS,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": _POOLING_MEAN,
        "bert.vocab_size": len(_TOKENS),
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": _TOKENS,
        "tokenizer.ggml.token_type": [*(_CONTROL for _ in _SPECIAL), *(_NORMAL for _ in _TOKENS[len(_SPECIAL) :])],
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
    }


def _tensors(seed: int, dimensions: int, context: int) -> list[Tensor]:
    embeddings = [
        _noise(seed, "token_embd.weight", dimensions, len(_TOKENS), exponent=_LARGE),
        _noise(seed, "token_types.weight", dimensions, 2),
        _noise(seed, "position_embd.weight", dimensions, context),
        *_norm("token_embd_norm", dimensions),
    ]
    return embeddings + [t for layer in range(_LAYERS) for t in _layer(seed, f"blk.{layer}", dimensions)]


def _layer(seed: int, prefix: str, dimensions: int) -> list[Tensor]:
    inner = 2 * dimensions
    shapes = {f"attn_{part}": (dimensions, dimensions) for part in ("q", "k", "v", "output")}
    shapes |= {"ffn_up": (dimensions, inner), "ffn_down": (inner, dimensions)}
    weights = [_noise(seed, f"{prefix}.{name}.weight", *shape) for name, shape in shapes.items()]
    biases = [_noise(seed, f"{prefix}.{name}.bias", shape[1]) for name, shape in shapes.items()]
    norms = [*_norm(f"{prefix}.attn_output_norm", dimensions), *_norm(f"{prefix}.layer_output_norm", dimensions)]
    return weights + biases + norms


def _norm(name: str, dimensions: int) -> tuple[Tensor, Tensor]:
    return constant(f"{name}.weight", dimensions, value=1.0), constant(f"{name}.bias", dimensions)


def _noise(seed: int, name: str, *shape: int, exponent: int = _SMALL) -> Tensor:
    """SHAKE-256 of seed and name, read as floats: the same bytes on every machine and Python, without a loop.

    The last byte of a little-endian float is its sign and most of its exponent; all other bits stay as they are.
    """
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    raw = bytearray(hashlib.shake_256(f"{seed}/{name}".encode()).digest(4 * count))
    raw[3::4] = raw[3::4].translate(bytes((exponent | byte & 0x80) for byte in range(256)))
    return Tensor(name, shape, bytes(raw))
