"""Facts survive being stored, and are small."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.vram.facts import GgufFacts, HfFacts, Tensor
from labctl.vram.metadata.codec import facts_from_json, facts_to_json, pack, slim, unpack
from labctl.vram.metadata.errors import MetadataError

NAMES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["blk.", "v.blk.", "model.layers.", "", "x{0..1}.", "5."]),
    st.integers(0, 12),
    st.sampled_from([".a.weight", ".b", ".experts.3.w", "", ".{0..2}.c", " d"]),
)
TENSORS = st.lists(
    st.builds(
        Tensor, NAMES, st.lists(st.integers(1, 9), max_size=3).map(tuple), st.sampled_from(["F32", "Q4_K", "Q6_K"])
    ),
    max_size=60,
)


@given(TENSORS)
def test_any_list_of_tensors_comes_back_in_order(tensors: list[Tensor]) -> None:
    assert unpack(json.loads(json.dumps(pack(tensors)))) == tuple(tensors)


def test_layers_are_written_once() -> None:
    tensors = [Tensor(f"blk.{n}.ffn_down.weight", (256, 64), "Q6_K" if n < 4 else "Q4_K") for n in range(32)]
    assert pack(tensors) == [["blk.{0..31}.ffn_down.weight 256x64 Q6_K*4,Q4_K*28"]]


def test_gguf_facts_come_back() -> None:
    facts = GgufFacts(
        metadata={"general.architecture": "x", "a": (1, 2), "b": float("inf"), "c": True, "tokenizer.x": "y"},
        tensors=(Tensor("t", (), "F32"),),
        vocab=7,
        array_lengths={"tokenizer.ggml.tokens": 7},
    )
    assert facts_from_json(json.loads(json.dumps(facts_to_json(facts), allow_nan=False))) == facts
    assert "tokenizer.x" not in slim(facts).metadata


def test_hf_facts_come_back() -> None:
    facts = HfFacts(config={"model_type": "llama", "n": {"m": [1]}}, tensors=(Tensor("t", (2, 3), "BF16"),))
    assert facts_from_json(json.loads(json.dumps(facts_to_json(facts)))) == facts


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"format": 2},
        {"format": 1, "kind": "gguf", "tensors": ["a 1 F32"]},
        {"format": 1, "kind": "hf", "config": {}, "tensors": ["a"]},
        {"format": 1, "kind": "hf", "config": {}, "tensors": [["a{0..99999}b 1 F32"] * 9]},
        {"format": 1, "kind": "hf", "config": {}, "tensors": [["a{0..3}b 1 F32*2,F16*1"]]},
        {"format": 1, "kind": "hf", "config": {}, "tensors": [["a{3..0}b 1 F32"]]},
        {"format": 1, "kind": "hf", "config": {}, "tensors": 3},
    ],
)
def test_damaged_facts_are_an_error_in_words(value: object) -> None:
    with pytest.raises(MetadataError):
        facts_from_json(value)
