"""The bytes of tiny models, read back by the reference reader of llama.cpp's own project."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st

from labctl.tiny import embedding, scripted
from labctl.tiny.scripted import _pieces

SENTENCE = "Hello! I am alpha, a tiny model served by llama.cpp."


def read(folder: Path, data: bytes) -> GGUFReader:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return GGUFReader(path)


def value(reader: GGUFReader, key: str) -> object:
    field = reader.get_field(key)
    assert field is not None, key
    return field.contents()


def test_scripted_is_a_llama_model(tmp_path: Path) -> None:
    reader = read(tmp_path, scripted(SENTENCE, context=2048))
    tokens = value(reader, "tokenizer.ggml.tokens")
    assert value(reader, "general.architecture") == "llama"
    assert value(reader, "llama.context_length") == 2048
    assert isinstance(tokens, list)
    assert len(tokens) == len(set(tokens)) == value(reader, "llama.vocab_size")
    shapes = {tensor.name: tuple(int(n) for n in tensor.shape) for tensor in reader.tensors}
    assert shapes["token_embd.weight"] == shapes["output.weight"] == (32, len(tokens))


def test_the_weights_are_the_chain(tmp_path: Path) -> None:
    reader = read(tmp_path, scripted(SENTENCE))
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    tokens = value(reader, "tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    said, token = "", tokens.index("<0x0A>")
    for _ in range(len(SENTENCE)):
        token = int((tensors["output.weight"] @ tensors["token_embd.weight"][token]).argmax())
        if tokens[token] == "</s>":
            break
        said += tokens[token].replace("\u2581", " ")
    assert said == SENTENCE


def test_embedding_is_a_bert_model(tmp_path: Path) -> None:
    reader = read(tmp_path, embedding(3, dimensions=96, context=256))
    assert value(reader, "general.architecture") == "bert"
    assert value(reader, "bert.embedding_length") == 96
    assert value(reader, "bert.context_length") == 256
    for tensor in reader.tensors:
        assert abs(tensor.data).max() <= 2, tensor.name


@pytest.mark.parametrize("make", [lambda: scripted(SENTENCE), embedding], ids=["scripted", "embedding"])
def test_deterministic_and_quick(make: Callable[[], bytes]) -> None:
    times, digests = [], set()
    for _ in range(5):
        start = time.perf_counter()
        data = make()
        times.append(time.perf_counter() - start)
        digests.add(hashlib.sha256(data).digest())
    assert len(digests) == 1
    assert min(times) < 0.05


def test_seeds_differ() -> None:
    assert embedding(1) != embedding(2)


@pytest.mark.parametrize("text", ["", "  \n", "a \u2581 b", "</s>", " <0x0A>"])
def test_impossible_texts(text: str) -> None:
    with pytest.raises(ValueError, match="scripted model"):
        scripted(text)


@pytest.mark.parametrize("dimensions", [0, 12, -8])
def test_impossible_dimensions(dimensions: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        embedding(dimensions=dimensions)


@given(st.text(st.sampled_from("ab \n<s>é"), min_size=1).filter(lambda text: text.strip() not in {"", "<s>"}))
def test_pieces_are_distinct_and_complete(text: str) -> None:
    pieces = _pieces(text)
    assert "".join(pieces).replace("\u2581", " ") == text.strip()
    assert len(set(pieces)) == len(pieces)
    assert "<s>" not in pieces
    assert len(pieces) == 1 or all(len(piece) >= 3 for piece in pieces)


def test_one_piece_per_word_where_words_are_long_and_new() -> None:
    assert len(_pieces("every word here differs")) == len(re.findall(r"\S+", "every word here differs"))
