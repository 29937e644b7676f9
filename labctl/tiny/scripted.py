"""A llama model that says one sentence: its weights are a Markov chain, so that real llama.cpp serves a known answer.

Attention and feed-forward weights are zero, so the last token alone decides. Its embedding is a one-hot *state*, and
the output matrix maps each state to its successor: any token that is not part of the sentence → first piece, piece i →
piece i + 1, last piece → end. The chosen logit is so far ahead that sampling at any usual temperature changes nothing.
"""

from __future__ import annotations

import re
import string
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from labctl.tiny.gguf_writer import Tensor, Value, constant, write

CHAT_TEMPLATE: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SPACE: Final = "\u2581"
"""How SentencePiece vocabularies spell a space."""
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_SPECIAL: Final = {
    "<unk>": _UNKNOWN,
    "<s>": _CONTROL,
    "</s>": _CONTROL,
    "<|im_start|>": _CONTROL,
    "<|im_end|>": _CONTROL,
}
_END: Final = 2
_BYTES: Final = tuple(f"<0x{value:02X}>" for value in range(256))
_VISIBLE: Final = (_SPACE, *string.digits, *string.ascii_letters, *string.punctuation)
_RESERVED: Final = frozenset((*_SPECIAL, *_BYTES))
_BASE: Final = len(_SPECIAL) + len(_BYTES)
"""Token id of the sentence's first piece."""
_SHORTEST: Final = 3
"""Characters of the shortest piece: the tokenizer joins two, so it can never build a longer one from a prompt."""
_WIDTH: Final = 32
_LOGIT: Final = 1024.0
_ONE: Final = struct.pack("<f", 1.0)


def scripted(text: str, *, context: int = 4096) -> bytes:
    """Return a GGUF file (about 130 KB) of a model that answers every prompt with exactly ``text`` and stops.

    Words may repeat: a repeated word shares a token with its neighbours. Deterministic.

    Args:
        text: the answer; white space inside is kept, around it is dropped.
        context: the context length that the model declares, in tokens.

    Raises:
        ValueError: the text is empty or the name of a control token, or holds the character U+2581, which stands for a
            space in the vocabulary.
    """
    pieces = _pieces(text)
    state = max(_WIDTH, -(-(len(pieces) + 1) // _WIDTH) * _WIDTH)
    tokens = [*_SPECIAL, *_BYTES, *pieces, *_singles(pieces)]
    return write(_metadata(tokens, len(pieces), state, context), _tensors(len(tokens), len(pieces), state))


def _pieces(text: str) -> list[str]:
    """Split into distinct pieces, no shorter than ``_SHORTEST`` characters where the text allows."""
    if not text.strip():
        message = "a scripted model needs a text to say"
        raise ValueError(message)
    if _SPACE in text or text.strip() in _RESERVED:
        message = (
            f"a scripted model cannot say {text.strip()!r}: it reads as a control token or holds {_SPACE!r} (U+2581)"
        )
        raise ValueError(message)
    return _distinct(re.findall(rf"[\s{_SPACE}]*[^\s{_SPACE}]+", text.strip().replace(" ", _SPACE)))


def _distinct(words: Sequence[str]) -> list[str]:
    pieces: list[str] = []
    rest = ""
    for word in words:
        rest += word
        if len(rest) >= _SHORTEST and rest not in pieces and rest not in _RESERVED:
            pieces.append(rest)
            rest = ""
    while rest and pieces:
        rest = pieces.pop() + rest
        if rest not in pieces:
            break
    return [*pieces, rest] if rest else pieces


def _singles(pieces: Sequence[str]) -> Iterator[str]:
    return (character for character in _VISIBLE if character not in pieces)


def _metadata(tokens: Sequence[str], said: int, state: int, context: int) -> dict[str, Value]:
    kinds = [*_SPECIAL.values(), *(_BYTE for _ in _BYTES), *(_NORMAL for _ in tokens[_BASE:])]
    scores = [*(0.0 for _ in tokens[:_BASE]), *(-1000.0 - i for i in range(said))]
    scores += [-float(i) for i in range(len(tokens) - len(scores))]
    return {
        "general.architecture": "llama",
        "general.name": "scripted",
        "general.file_type": 0,
        "llama.context_length": context,
        "llama.embedding_length": state,
        "llama.block_count": 1,
        "llama.feed_forward_length": _WIDTH,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": state // 2,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": _END,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _tensors(vocab: int, said: int, state: int) -> list[Tensor]:
    matrices = [constant(f"blk.0.attn_{part}.weight", state, state) for part in ("q", "k", "v", "output")]
    return [
        Tensor("token_embd.weight", (state, vocab), _states(vocab, said, state)),
        constant("output_norm.weight", state, value=1.0),
        Tensor("output.weight", (state, vocab), _successors(vocab, said, state)),
        constant("blk.0.attn_norm.weight", state, value=1.0),
        *matrices,
        constant("blk.0.ffn_norm.weight", state, value=1.0),
        constant("blk.0.ffn_gate.weight", state, _WIDTH),
        constant("blk.0.ffn_up.weight", state, _WIDTH),
        constant("blk.0.ffn_down.weight", _WIDTH, state),
    ]


def _states(vocab: int, said: int, state: int) -> bytes:
    """One row per token: state 0 for all but the pieces, state i + 1 after piece i."""
    other = _ONE + bytes(4 * (state - 1))
    after = [_one_hot(i + 1, _ONE, state) for i in range(said)]
    return other * _BASE + b"".join(after) + other * (vocab - _BASE - said)


def _successors(vocab: int, said: int, state: int) -> bytes:
    """One row per token: which state makes it the next one."""
    logit = struct.pack("<f", _LOGIT)
    silent = bytes(4 * state)
    rows = [silent] * vocab
    rows[_END] = _one_hot(said, logit, state)
    rows[_BASE : _BASE + said] = (_one_hot(i, logit, state) for i in range(said))
    return b"".join(rows)


def _one_hot(position: int, value: bytes, width: int) -> bytes:
    return bytes(4 * position) + value + bytes(4 * (width - position - 1))
