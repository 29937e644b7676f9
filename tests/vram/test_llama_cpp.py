"""llama.cpp's memory model: laws that hold whatever the model, and settings it must refuse."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.vram.cases import models
from labctl.vram.facts import GgufFacts, Tensor
from labctl.vram.llama_cpp import Settings, estimate, sequence
from labctl.vram.llama_cpp.sequence import cut

DATA = Path(__file__).parents[1] / "data" / "vram"


@cache
def known() -> dict[tuple[str, str], GgufFacts]:
    return models(DATA)


@cache
def llama() -> GgufFacts:
    return known()["llama-3.1-8b", "Q4_K_M"]


MODELS = st.sampled_from(sorted(models(DATA)))
STARTS = st.builds(
    Settings,
    context=st.sampled_from([512, 2048, 8192]),
    slots=st.sampled_from([1, 2, 4]),
    ubatch=st.sampled_from([64, 512]),
    flash_attention=st.booleans(),
    gpu_layers=st.sampled_from([0, 7, 999]),
    build=st.sampled_from(["b11549", "b9000", "c392e50"]),
)
FEW = settings(max_examples=25, deadline=None)


FRAGMENTATION = 0.01
"""ggml's allocator may waste a little more on a smaller graph: this share of the compute buffer at most."""


@FEW
@given(MODELS, STARTS)
def test_more_context_never_takes_less(model: tuple[str, str], start: Settings) -> None:
    small, large = (estimate(known()[model], replace(start, context=start.context * factor)) for factor in (1, 4))
    for a, b in zip(small.devices, large.devices, strict=True):
        assert a.weights == b.weights
        assert a.context <= b.context
        if start.gpu_layers == 999 and start.build == "b11549":  # elsewhere it may shrink: see the next test
            assert a.compute <= b.compute * (1 + FRAGMENTATION)
    assert small.host <= large.host


def test_more_context_may_need_a_smaller_buffer_for_copied_weights() -> None:
    """llama.cpp b11549's own planner gives these two numbers: a larger context, a smaller compute buffer."""
    start = Settings(ubatch=64, flash_attention=False, gpu_layers=0, outputs=1)
    sizes = [estimate(llama(), replace(start, context=n)).devices[0].compute for n in (512, 2048)]
    assert sizes == [66519552, 56033792]


@FEW
@given(MODELS, STARTS, st.integers(0, 40))
def test_more_layers_on_the_gpu_never_take_less_there(model: tuple[str, str], start: Settings, layers: int) -> None:
    a, b = (estimate(known()[model], replace(start, gpu_layers=n)).devices[0] for n in (layers, layers + 1))
    assert a.weights <= b.weights
    assert a.context <= b.context


@FEW
@given(MODELS, STARTS, st.integers(2, 4))
def test_several_gpus_hold_what_one_does(model: tuple[str, str], start: Settings, devices: int) -> None:
    one, many = (estimate(known()[model], replace(start, devices=n, gpu_layers=999)) for n in (1, devices))
    assert len(many.devices) == devices
    slack = 16 * 1024 * devices  # rope factors are copied to each
    assert abs(sum(d.weights for d in many.devices) - one.devices[0].weights) <= slack
    assert sum(d.context for d in many.devices) == one.devices[0].context


@FEW
@given(MODELS, STARTS)
def test_the_derivation_adds_up(model: tuple[str, str], start: Settings) -> None:
    footprint = estimate(known()[model], start)
    by_part = {part: sum(s.bytes for s in footprint.steps if s.label.startswith(f"GPU 0: {part}")) for part in PARTS}
    device = footprint.devices[0]
    assert by_part["weights"] == device.weights
    assert by_part["compute"] == device.compute
    assert sum(s.bytes for s in footprint.steps if s.label.startswith("GPU 0:")) == device.total
    assert sum(s.bytes for s in footprint.steps if s.label.startswith("host:")) == footprint.host
    assert all(step.formula and step.source for step in footprint.steps)


PARTS = ("weights", "compute")


@settings(max_examples=20, deadline=None)
@given(MODELS, STARTS)
def test_leaving_out_equal_blocks_changes_nothing(model: tuple[str, str], start: Settings) -> None:
    short = estimate(known()[model], start)
    kept = sequence.KEPT
    try:
        sequence.KEPT = 1000
        assert estimate(known()[model], start) == short
    finally:
        sequence.KEPT = kept


def test_cut_keeps_ends_and_parity() -> None:
    assert cut("aaa") == [0, 1, 2]
    kept = cut("x" + "ab" * 20 + "y")
    assert kept[0] == 0
    assert kept[-1] == 41
    assert (42 - len(kept)) % 4 == 0
    assert len(kept) < 12


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"context": 0}, "`context` is 0"),
        ({"slots": -1}, "`slots` is -1"),
        ({"kv_cache_k": "q9"}, "unknown ggml tensor type `Q9`"),
        ({"kv_cache_v": "q8_0", "flash_attention": False}, "needs flash attention"),
        ({"backend": "metal"}, "unknown backend `metal`"),
        ({"split_mode": "column"}, "unknown split mode `column`"),
        ({"build": "main"}, "unknown llama.cpp build `main`"),
    ],
)
def test_impossible_settings(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        estimate(llama(), replace(Settings(), **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["general.architecture", "llama.block_count", "llama.embedding_length"])
def test_missing_metadata(key: str) -> None:
    metadata = {k: v for k, v in llama().metadata.items() if k != key}
    with pytest.raises(ValueError, match=key.rsplit(".", maxsplit=1)[-1]):
        estimate(replace(llama(), metadata=metadata), Settings())


def test_a_missing_tensor_makes_it_a_bound() -> None:
    tensors = tuple(t for t in llama().tensors if "attn_q.weight" not in t.name)
    footprint = estimate(replace(llama(), tensors=tensors), Settings())
    assert not footprint.exact
    assert footprint.devices[0].compute >= estimate(llama(), Settings()).devices[0].compute


def test_an_unknown_architecture_is_a_bound() -> None:
    metadata = {k.replace("llama.", "novel."): v for k, v in llama().metadata.items()}
    metadata["general.architecture"] = "novel"
    bound, exact = estimate(replace(llama(), metadata=metadata), Settings()), estimate(llama(), Settings())
    assert not bound.exact
    assert exact.exact
    assert bound.devices[0].weights == exact.devices[0].weights
    assert bound.devices[0].context == exact.devices[0].context
    assert bound.devices[0].compute > exact.devices[0].compute


def test_tensor_split_moves_layers() -> None:
    even = estimate(llama(), Settings(devices=2))
    uneven = estimate(llama(), Settings(devices=2, tensor_split=(3, 1)))
    assert (uneven.devices[0].context, uneven.devices[1].context) == (25 * 2**24, 7 * 2**24)  # 33 layers, one of output
    assert uneven.devices[0].weights > even.devices[0].weights
    free = estimate(llama(), Settings(devices=2, free_memory=(24 * 2**30, 8 * 2**30)))
    assert free == uneven


def test_rows_split_over_gpus() -> None:
    one, two = estimate(llama(), Settings()), estimate(llama(), Settings(devices=2, split_mode="row"))
    assert not two.exact
    assert two.devices[1].context == 0
    assert sum(d.weights for d in two.devices) == pytest.approx(one.devices[0].weights, rel=1e-3)


def test_one_gpu_of_several_without_a_split() -> None:
    assert estimate(llama(), Settings(devices=2, split_mode="none")) == estimate(llama(), Settings())


def test_experts_on_the_cpu() -> None:
    facts = known()["qwen3-30b-a3b", "Q4_K_M"]
    gpu, some, cpu = (estimate(facts, Settings(cpu_moe_layers=n)) for n in (0, 10, 48))
    assert gpu.devices[0].weights > some.devices[0].weights > cpu.devices[0].weights
    assert gpu.devices[0].context == cpu.devices[0].context
    assert cpu.devices[0].compute > gpu.devices[0].compute  # copies of the experts for large batches
    assert cpu.host > some.host > gpu.host


def test_no_kv_offload() -> None:
    here, there = estimate(llama(), Settings()), estimate(llama(), Settings(kv_offload=False))
    assert there.devices[0].context == 0
    assert there.host >= here.host + here.devices[0].context


def test_cpu_alone() -> None:
    footprint = estimate(llama(), Settings(backend="cpu"))
    assert footprint.devices == ()
    assert footprint.host > 4 * 2**30


def test_outputs_are_reserved_as_the_build_does() -> None:
    now, then = (estimate(llama(), Settings(build=build)).devices[0].compute for build in ("b11549", "b9000"))
    assert then - now > 128256 * 4 * 280


def test_draft_projector_and_adapter_come_on_top() -> None:
    draft = known()["llama-3.2-1b", "Q8_0"]
    alone, small = estimate(llama(), Settings()), estimate(draft, Settings())
    both = estimate(llama(), Settings(draft=draft))
    assert both.devices[0].total == alone.devices[0].total + small.devices[0].total
    vision = GgufFacts(
        metadata={"general.architecture": "clip", "clip.vision.image_size": 336, "clip.vision.patch_size": 14,
                  "clip.vision.embedding_length": 1024, "clip.vision.feed_forward_length": 4096,
                  "clip.vision.attention.head_count": 16},
        tensors=(Tensor("v.blk.0.attn_q.weight", (1024, 1024), "F16"),),
        vocab=0,
    )  # fmt: skip
    seen = estimate(llama(), Settings(projector=vision))
    assert seen.devices[0].weights == alone.devices[0].weights + 2 * 1024 * 1024
    assert seen.devices[0].compute > alone.devices[0].compute
    assert not seen.exact
    adapter = GgufFacts(metadata={}, tensors=(Tensor("blk.0.attn_q.weight.lora_a", (4096, 16), "F16"),), vocab=0)
    adapted = estimate(llama(), Settings(lora=(adapter,)))
    assert adapted.devices[0].weights == alone.devices[0].weights + 4096 * 16 * 2
