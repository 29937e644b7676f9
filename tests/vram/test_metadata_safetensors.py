"""The safetensors parser and model folders."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.vram.facts import HfFacts, Tensor
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.safetensors import INDEX, parse_index, parse_safetensors, read_folder, tensor_bytes
from tests.vram.gguf_files import over

GOOD = {
    "__metadata__": {"format": "pt"},
    "b": {"dtype": "F8_E4M3", "shape": [3, 2], "data_offsets": [8, 14]},
    "a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
}


def pack(header: object, data: int = 14) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def parse(content: bytes) -> tuple[Tensor, ...]:
    return parse_safetensors(over(content), len(content))


@pytest.mark.parametrize("data", [0, 14])
def test_tensors_come_in_the_order_of_their_data(data: int) -> None:
    tensors = parse(pack(GOOD, data))
    assert tensors == (Tensor("a", (2, 2), "BF16"), Tensor("b", (3, 2), "F8_E4M3"))
    assert sum(map(tensor_bytes, tensors)) == 14


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "would end"),
        (b"GGUF\x03\0\0\0" + bytes(30), "claims a header"),
        (struct.pack("<Q", 1 << 62), "claims a header"),
        (pack(b"{]"), "not valid JSON"),
        (pack(b"[]"), "not a JSON object"),
        (pack(b"{}" + b"\xff"), "not valid JSON"),
        (pack(b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
        (pack(b'{"a":' + b"[" * (1 << 21) + b"}"), "more parts"),
        (pack(b'{"a":' + b"1" * 5000 + b"}"), "not valid JSON"),
        (pack(b'{"a":NaN}'), "NaN"),
        (pack(b'{"a":{},"a":{}}'), "'a' appears twice"),
        (pack({"a": 3}), "not described"),
        (pack({"a": {"dtype": "X", "shape": [], "data_offsets": [0, 0]}}), "type 'X'"),
        (pack({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}), "impossible shape"),
        (pack({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}), "impossible shape"),
        (pack({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}), "data_offsets"),
        (pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}), "needs 8 bytes"),
        (pack({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}), "begins at 4"),
        (pack(GOOD, 13), "the data ends"),
    ],
)
def test_a_lie_is_an_error_in_words(content: bytes, words: str) -> None:
    with pytest.raises(MetadataError, match=words):
        parse(content)


def folder(files: dict[str, bytes]) -> HfFacts:
    def tensors(name: str) -> tuple[Tensor, ...]:
        if name not in files:
            raise MetadataError(summary="there is no such file", where=name)
        return parse(files[name])

    return read_folder(files.get, tensors)


CONFIG = b'{"model_type": "llama"}'
ONE = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
TWO = {"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def test_a_folder_of_one_file_and_of_shards() -> None:
    single = folder({"config.json": CONFIG, "model.safetensors": pack(ONE, 4)})
    assert single == HfFacts(config={"model_type": "llama"}, tensors=(Tensor("a", (1,), "F32"),))
    index = {"metadata": {"total_size": 8}, "weight_map": {"b": "2.safetensors", "a": "1.safetensors"}}
    files = {"config.json": CONFIG, INDEX: json.dumps(index).encode()}
    shards = folder({**files, "1.safetensors": pack(ONE, 4), "2.safetensors": pack(TWO, 4)})
    assert [tensor.name for tensor in shards.tensors] == ["a", "b"]


def test_broken_folders() -> None:
    index = {INDEX: json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}).encode()}
    one, two = {"1.safetensors": pack(ONE, 4)}, {"2.safetensors": pack(TWO, 4)}
    for files, words in (
        ({}, "no `config.json`"),
        ({"config.json": b"x"}, "not valid JSON"),
        ({"config.json": CONFIG, **index, **one}, "no such file"),
        ({"config.json": CONFIG, **index, **one, "2.safetensors": pack(ONE, 4)}, "same name"),
        ({"config.json": CONFIG, **index, **two, "1.safetensors": pack({}, 0)}, "promises the tensor `a`"),
    ):
        with pytest.raises(MetadataError, match=words):
            folder(files)


@pytest.mark.parametrize("shard", ["../x", "/etc/passwd", "", "..", "a?b", 3, None])
def test_an_index_stays_in_its_folder(shard: object) -> None:
    with pytest.raises(MetadataError, match="not a file beside it"):
        parse_index(json.dumps({"weight_map": {"a": shard}}).encode())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutations_give_tensors_or_a_metadata_error(data: st.DataObject) -> None:
    content = bytearray(pack(GOOD))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + 1] = data.draw(st.binary(max_size=4))
    try:
        parse(bytes(content))
    except MetadataError as error:
        assert str(error)  # noqa: PT017
