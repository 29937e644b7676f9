"""The GGUF parser: real files, every way to lie, and how much of a big file it touches."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.vram.facts import GgufFacts, Tensor
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.gguf import KEPT_ELEMENTS, parse_gguf
from labctl.vram.metadata.split import join_parts, part_names
from tests.vram.gguf_files import header, key, model, over, string, tensor_info

TENSORS = (
    Tensor("token_embd.weight", (64, 300), "Q8_0"),
    Tensor("blk.0.attn_q.weight", (64, 64), "F16"),
    Tensor("blk.0.attn_norm.weight", (64,), "F32"),
)
METADATA = {"general.architecture": "llama", "llama.block_count": 1, "llama.rope.freq_base": 1.5, "x.on": True}


def parse(content: bytes) -> GgufFacts:
    return parse_gguf(over(content), len(content))


def refused(content: bytes) -> str:
    with pytest.raises(MetadataError) as caught:
        parse(content)
    return str(caught.value)


def test_a_file_written_by_the_gguf_package(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_array("llama.attention.head_count_kv", [1, 0])
    writer.add_token_list([f"t{n}" for n in range(5000)])
    writer.add_token_scores([0.0] * 5000)
    writer.add_tensor("token_embd.weight", np.zeros((5000, 32), np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((64, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = parse(path.read_bytes())
    assert facts.architecture == "llama"
    assert facts.metadata["llama.attention.head_count_kv"] == (1, 0)
    assert facts.array_lengths == {"tokenizer.ggml.tokens": 5000, "tokenizer.ggml.scores": 5000}
    assert facts.vocab == 5000
    assert facts.tensors == (
        Tensor("token_embd.weight", (32, 5000), "F32"),
        Tensor("blk.0.ffn_up.weight", (32, 64), "F16"),
    )


@pytest.mark.parametrize("data", [False, True])
def test_metadata_and_tensors_come_back(data: bool) -> None:  # noqa: FBT001
    facts = parse(model(METADATA, TENSORS, data=data))
    assert dict(facts.metadata) == METADATA
    assert facts.tensors == TENSORS
    assert facts.vocab == 300


def test_vocabulary_prefers_the_token_list() -> None:
    short = parse(model({**METADATA, "tokenizer.ggml.tokens": ["a", "b"]}, TENSORS))
    declared = parse(model({**METADATA, "llama.vocab_size": 77}, TENSORS))
    assert (short.vocab, declared.vocab) == (2, 77)


def test_long_strings_and_arrays_are_counted_not_kept() -> None:
    facts = parse(model({"a": "x" * (2 << 20), "b": [1] * (KEPT_ELEMENTS + 1), "c": [1] * KEPT_ELEMENTS}, ()))
    assert facts.array_lengths == {"a": 2 << 20, "b": KEPT_ELEMENTS + 1}
    assert facts.metadata["c"] == (1,) * KEPT_ELEMENTS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "magic number would end"),
        (b"GG", "magic"),
        (b"lmgg" + bytes(20), "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file"),
        (header([], [], version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (header([], [], version=99), "version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63), "claims"),
        (header([key("a", 1), key("a", 2)], []), "twice"),
        (header([struct.pack("<Q", 1 << 50)], []), "claims to be"),
        (header([string(b"\xff\xfe") + struct.pack("<II", 4, 1)], []), "not UTF-8"),
        (header([string("a") + struct.pack("<I", 77)], []), "value type 77"),
        (header([string("a") + struct.pack("<IQ", 8, 1 << 40)], []), "would end at byte"),
        (header([string("a") + struct.pack("<IIQ", 9, 9, 1)], []), "nested arrays"),
        (header([string("a") + struct.pack("<IIQ", 9, 55, 1)], []), "no element type 55"),
        (header([string("a") + struct.pack("<IIQ", 9, 8, 1 << 60)], []), "long"),
        (header([string("a") + struct.pack("<IIQ", 9, 4, 1 << 62)], []), "long"),
        (header([key("general.alignment", 3)], []), "power of two"),
        (header([], [tensor_info(TENSORS[2], 0), tensor_info(TENSORS[2], 256)]), "same name"),
        (header([], [tensor_info(TENSORS[2], 8)]), "not aligned"),
        (header([], [tensor_info(TENSORS[2], 0), tensor_info(TENSORS[1], 32)]), "overlap"),
        (header([], [string("t") + struct.pack("<I", 9)]), "9 dimensions"),
        (header([], [string("t") + struct.pack("<IQIQ", 1, 32, 99, 0)]), "type 99"),
        (header([], [string("t") + struct.pack("<IQIQ", 1, 33, 8, 0)]), "rows of 33"),
        (header([], [string("t") + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0)]), "impossible shape"),
        (model(METADATA, TENSORS, data=True)[:-32], "tensor data ends"),
        (model(METADATA, TENSORS)[:-1], "would end"),
    ],
)
def test_a_lie_is_an_error_in_words(content: bytes, words: str) -> None:
    assert words in refused(content)


@pytest.mark.parametrize("claim", [1 << 20, 1 << 40, (1 << 61) - 1])
def test_a_claimed_array_takes_neither_time_nor_memory_without_a_size(claim: int) -> None:
    content = header([string("a") + struct.pack("<IIQ", 9, 8, claim)], []) + bytes(1 << 16)
    with pytest.raises(MetadataError):
        parse_gguf(over(content), None)


def test_an_endless_file_of_zeros_is_given_up() -> None:
    with pytest.raises(MetadataError, match=r"twice|sane"):
        parse_gguf(
            lambda offset, length: (header([], [])[:16] + struct.pack("<Q", 9000) + bytes(length))[offset:], None
        )


def test_a_typical_40_gb_file_costs_its_header_only() -> None:
    """Llama-3-like: 128,256 tokens and 280,147 merges; scores and types are skipped unread."""
    tokens = [f"token{n:06}" for n in range(128_256)]
    merges = [f"to ken{n:06}" for n in range(280_147)]
    metadata = {**METADATA, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * 128_256}
    content = model({**metadata, "tokenizer.ggml.merges": merges}, TENSORS)
    fetched = []

    def read(offset: int, length: int) -> bytes:
        fetched.append(length)
        return content[offset : offset + length] or bytes(length)

    facts = parse_gguf(read, 40 * 10**9)
    assert facts.vocab == 128_256
    assert sum(fetched) <= len(content) + 2 * 1024 * 1024
    assert len(fetched) <= 10


def test_parts_of_a_split_model_are_joined() -> None:
    split = {"split.count": 2, "split.tensors.count": 3}
    first = parse(model({**METADATA, **split, "split.no": 0}, TENSORS[:1]))
    second = parse(model({**split, "split.no": 1}, TENSORS[1:]))
    whole = join_parts([first, second])
    assert whole.tensors == TENSORS
    assert dict(whole.metadata) == METADATA
    assert whole.vocab == 300
    for wrong in ([second, first], [first], [first, first], []):
        with pytest.raises(MetadataError):
            join_parts(wrong)


def test_names_of_parts() -> None:
    assert part_names("a/b-00002-of-00002.gguf?x=1", 2) == (
        "a/b-00001-of-00002.gguf?x=1",
        "a/b-00002-of-00002.gguf?x=1",
    )
    for name in ("a.gguf", "b-00001-of-00003.gguf"):
        with pytest.raises(MetadataError, match="does not say so"):
            part_names(name, 2)


REAL = model({**METADATA, "tokenizer.ggml.tokens": ["<s>"] * 40, "split.count": 1}, TENSORS, data=True)


def either(content: bytes, size: int | None) -> None:
    try:
        facts = parse_gguf(over(content), size)
    except MetadataError as error:
        assert str(error)  # noqa: PT017
    else:
        assert isinstance(facts, GgufFacts)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), known=st.booleans())
def test_mutated_headers_give_facts_or_a_metadata_error(data: st.DataObject, known: bool) -> None:  # noqa: FBT001
    content = bytearray(REAL)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, 600))
        piece = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\x09\0\0\0"]))
        content[at : at + len(piece)] = piece
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    either(bytes(content[:cut]), cut if known else None)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_give_facts_or_a_metadata_error(content: bytes) -> None:
    either(content, len(content))
    either(b"GGUF\x03\0\0\0" + content, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=50), st.integers(1, 300), st.booleans())
def test_short_reads_change_nothing(texts: list[str], most: int, known: bool) -> None:  # noqa: FBT001
    long = [*texts, *["tok"] * (KEPT_ELEMENTS + 1)]
    content = model({**METADATA, "tokenizer.ggml.tokens": long, "after": texts or ["x"]}, TENSORS)
    facts = parse_gguf(lambda at, length: content[at : at + min(length, most)], len(content) if known else None)
    assert facts == parse(content)
    assert facts.metadata["after"] == tuple(texts or ["x"])
