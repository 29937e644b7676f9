"""vLLM's memory model against the measured servers, and its own laws."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.vram.facts import HfFacts, Tensor
from labctl.vram.metadata.catalogue import lookup
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.vllm import Quantisation, Runner, Settings, estimate, plan_budget
from labctl.vram.vllm.budget import fraction
from labctl.vram.vllm.estimate import parts_of
from labctl.vram.vllm.settings import GIB, MIB

H100 = 81_080 * MIB


def facts_of(source: str) -> HfFacts:
    known = lookup(source)
    assert known is not None
    assert known.hf is not None
    return known.hf


@dataclass(frozen=True)
class Log:
    """A row of shared/vram/measured.csv whose model is known; MiB per GPU."""

    source: str
    weights: float
    kv: float
    activations: float
    non_torch: float
    requested: float
    settings: Settings


V0 = Settings(max_num_seqs=256, gpu_total_bytes=H100)
V1 = Settings(gpu_total_bytes=H100)
LOGS = {
    "Llama-3-8B tp2": Log(
        "meta-llama/Meta-Llama-3-8B", 7659.5, 60385.3, 1290.2, 3665.9, 73009.2,
        replace(V0, tensor_parallel=2, max_num_batched_tokens=8192),
    ),
    "Llama-3.1-8B": Log(
        "meta-llama/Llama-3.1-8B", 15349.8, 56248.3, 1218.6, 122.9, 72935.5, replace(V0, max_num_batched_tokens=2048)
    ),
    "Qwen2.5-1.5B": Log(
        "Qwen/Qwen2.5-1.5B", 2959.4, 2416.6, 2068.5, 10.2, 7454.7, replace(V0, max_num_batched_tokens=32768)
    ),
    "gpt-oss-20b": Log("openai/gpt-oss-20b", 13793.3, 51486.7, 7557.1, 133.1, 72972.3, V1),
    "Llama-3.3-70B-FP8 tp2": Log(
        "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 34693.1, 32768.0, 4956.2, 563.2, 72972.3,
        replace(V1, tensor_parallel=2),
    ),
    "Qwen3-0.6B": Log("Qwen/Qwen3-0.6B", 1146.9, 65996.8, 5693.4, 133.1, 72972.3, V1),
    "Qwen3-32B tp2": Log(
        "Qwen/Qwen3-32B", 31324.2, 35317.8, 5775.4, 553.0, 72972.3, replace(V1, tensor_parallel=2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOGS)
def test_weights_and_activations_of_measured_servers(name: str) -> None:
    log = LOGS[name]
    parts = parts_of(facts_of(log.source), log.settings)
    assert (parts.weights.model + parts.weights.rope) / MIB == pytest.approx(log.weights, rel=0.005)
    assert parts.peak.bytes / MIB == pytest.approx(log.activations, rel=0.025)


def test_kv_cache_of_measured_servers() -> None:
    """What is left of the memory asked for; its median error is held, the two outliers come from non-torch memory."""
    errors = []
    for log in LOGS.values():
        parts = parts_of(facts_of(log.source), log.settings)
        left = log.requested - (parts.fixed - parts.graphs) / MIB
        errors.append(abs(left / log.kv - 1))
    assert median(errors) < 0.002
    assert max(errors) < 0.052


def test_the_vision_model_of_the_logs_has_its_weights() -> None:
    parts = parts_of(facts_of("lingshu-medical-mllm/Lingshu-32B"), V0)
    assert (parts.weights.model + parts.weights.rope) / MIB == pytest.approx(63928.3, rel=0.005)


def test_tokens_of_a_measured_cache() -> None:
    """5519 blocks of 16 tokens in 2416.6 MiB (Qwen2.5-1.5B on a T4)."""
    cache = parts_of(facts_of("Qwen/Qwen2.5-1.5B"), V0).cache
    assert (cache.token_bytes, cache.block_tokens) == (28672, 16)
    assert cache.blocks(int(2416.6 * MIB)) == pytest.approx(5519, abs=6)


OTHER_LOGS: dict[str, tuple[str, dict[str, object], Settings, tuple[float, float]]] = {
    "DeepSeek-R1-0528-Qwen3-8B, 4 GPUs of 22 GB, vLLM 0.8.5 (text index file 13068150713)": (
        "Qwen/Qwen3-8B",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
        Settings(tensor_parallel=4, max_num_seqs=256, max_num_batched_tokens=8192, max_model_len=65536),
        (3.85, 1.45),
    ),
    "Qwen2.5-7B-Instruct-1M in 4 bits, 6 GB, vLLM 0.7.3 (text index file 59859526824)": (
        "Qwen/Qwen2.5-7B-Instruct",
        {"max_position_embeddings": 1_010_000},
        Settings(quantization=Quantisation.AWQ, max_num_seqs=256, max_num_batched_tokens=4200, max_model_len=4200),
        (5.43, 1.42),
    ),
    "Meta-Llama-3-8B on one H100 (vllm-project/vllm#10511)": (
        "meta-llama/Meta-Llama-3-8B", {}, Settings(max_num_seqs=256, max_num_batched_tokens=8192), (14.96, 1.26),
    ),
}  # fmt: skip
"""Not in measured.csv, and not used to choose any constant. GiB per GPU: weights, activations."""


@pytest.mark.parametrize("name", OTHER_LOGS)
def test_logs_that_no_constant_was_fitted_to(name: str) -> None:
    source, override, settings, (weights, activations) = OTHER_LOGS[name]
    parts = parts_of(HfFacts(config={**facts_of(source).config, **override}, tensors=()), settings)
    assert (parts.weights.model + parts.weights.rope) / GIB == pytest.approx(weights, rel=0.005)
    assert parts.peak.bytes / GIB == pytest.approx(activations, rel=0.04)


def test_cuda_graphs_count_from_version_0_21_on() -> None:
    """Older versions put them on top of what they ask for, so labctl makes them ask for less."""
    facts = facts_of("Qwen/Qwen3-8B")
    new = Settings(max_model_len=8192, gpu_total_bytes=H100, budget_bytes=40 * GIB)
    old = replace(new, version="0.11.0")
    graphs = parts_of(facts, new).graphs
    assert graphs > 0
    assert plan_budget(facts, new).requested_bytes - plan_budget(facts, old).requested_bytes == pytest.approx(
        graphs, abs=2 * 0.0001 * H100
    )
    assert plan_budget(facts, new).kv_cache_bytes == pytest.approx(plan_budget(facts, old).kv_cache_bytes, rel=0.001)
    assert plan_budget(facts, replace(old, eager=True)) == plan_budget(facts, replace(new, eager=True))


def test_the_rows_are_still_those_of_the_shared_file() -> None:
    path = Path("/work/shared/vram/measured.csv")
    if not path.exists():
        pytest.skip("shared/vram/measured.csv is not on this machine")
    rows = [row for row in csv.DictReader(path.read_text().splitlines()) if row["engine"] == "vllm"]
    measured = {float(row["weights_mib"]) for row in rows if row["weights_mib"]}
    assert {log.weights for log in LOGS.values()} <= measured


def as_files(config: dict[str, object]) -> tuple[Tensor, ...]:
    """The safetensors of a small llama, by its config."""
    d, f, v = 64, 160, 320
    layer = {
        "self_attn.q_proj.weight": (d, d), "self_attn.k_proj.weight": (d // 2, d),
        "self_attn.v_proj.weight": (d // 2, d), "self_attn.o_proj.weight": (d, d),
        "mlp.gate_proj.weight": (f, d), "mlp.up_proj.weight": (f, d), "mlp.down_proj.weight": (d, f),
        "input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,),
    }  # fmt: skip
    tensors = [Tensor("model.embed_tokens.weight", (v, d), "BF16"), Tensor("lm_head.weight", (v, d), "BF16")]
    for index in range(3):
        tensors += [Tensor(f"model.layers.{index}.{name}", shape, "BF16") for name, shape in layer.items()]
    tensors.append(Tensor("model.norm.weight", (d,), "BF16"))
    return tuple(t for t in tensors if not (config["tie_word_embeddings"] and t.name == "lm_head.weight"))


SMALL: dict[str, object] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 160,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("quantisation", [Quantisation.NONE, Quantisation.FP8, Quantisation.BITSANDBYTES])
@pytest.mark.parametrize("parts", [1, 2])
def test_config_and_files_agree(tied: bool, quantisation: Quantisation, parts: int) -> None:  # noqa: FBT001
    config = {**SMALL, "tie_word_embeddings": tied}
    settings = Settings(quantization=quantisation, tensor_parallel=parts)
    by_config = parts_of(HfFacts(config=config, tensors=()), settings).weights
    by_files = parts_of(HfFacts(config=config, tensors=as_files(config)), settings).weights
    assert by_files.parameters == by_config.parameters
    assert by_files.model == pytest.approx(by_config.model, rel=0.02)
    assert by_files.exact
    assert not by_config.exact


def test_files_beyond_the_model_are_not_counted() -> None:
    tensors = as_files(SMALL)
    more = (
        *tensors,
        Tensor("model.layers.3.mlp.up_proj.weight", (160, 64), "BF16"),
        Tensor("mtp.fc.weight", (9, 9), "BF16"),
    )
    settings = Settings()
    plain = parts_of(HfFacts(config=SMALL, tensors=tensors), settings).weights.model
    assert parts_of(HfFacts(config=SMALL, tensors=more), settings).weights.model == plain
    stored = replace(tensors[2], type="F8_E4M3")
    smaller = parts_of(HfFacts(config=SMALL, tensors=(*tensors[:2], stored, *tensors[3:])), settings).weights.model
    assert smaller == plain - 64 * 64


def test_mla_keeps_plain_copies_of_quantised_projections_and_copies_the_narrow_ones() -> None:
    facts = facts_of("deepseek-ai/DeepSeek-V2-Lite")
    plain, fp8 = (
        parts_of(facts, Settings(quantization=kind)).weights.model for kind in (Quantisation.NONE, Quantisation.FP8)
    )
    copies = 27 * 16 * 256 * 512 * 2
    assert plain / 2 < fp8 - copies < plain * 0.53
    halves = 2 * parts_of(facts, Settings(tensor_parallel=2)).weights.model
    narrow = (27 * (2048 * 576 + 512 + 2 * 2048) + 26 * 2048 * 64) * 2
    assert halves - plain == pytest.approx(narrow, rel=0.001)


def test_what_an_fp8_checkpoint_leaves_in_16_bits_stays_so() -> None:
    """Its own quantization_config: matrices count as stored, scales too, and plain matrices are not quantised again."""
    stored = {**SMALL, "quantization_config": {"quant_method": "fp8"}}
    tensors = as_files(SMALL)
    plain = parts_of(HfFacts(config=SMALL, tensors=tensors), Settings()).weights.model
    assert parts_of(HfFacts(config=stored, tensors=tensors), Settings()).weights.model == plain
    scale = Tensor("model.layers.0.self_attn.q_proj.weight_scale_inv", (8, 8), "F32")
    assert parts_of(HfFacts(config=stored, tensors=(*tensors, scale)), Settings()).weights.model == plain + 256
    online = Settings(quantization=Quantisation.FP8)
    assert parts_of(HfFacts(config=SMALL, tensors=tensors), online).weights.model < plain


def test_a_mixture_stored_as_mxfp4_by_its_files() -> None:
    """gpt-oss: blocks of 16 bytes, scales apart; rows of 2880 are padded to 3072."""
    config = facts_of("openai/gpt-oss-20b").config
    tensors = tuple(
        Tensor(f"model.layers.{index}.mlp.experts.{name}", shape, "U8")
        for index in range(24)
        for name, shape in {
            "gate_up_proj_blocks": (32, 5760, 90, 16), "gate_up_proj_scales": (32, 5760, 90),
            "down_proj_blocks": (32, 2880, 90, 16), "down_proj_scales": (32, 2880, 90),
        }.items()
    )  # fmt: skip
    model = parts_of(HfFacts(config=config, tensors=tensors), Settings()).weights.model
    assert model == pytest.approx(24 * 32 * 3 * 2880 * 3072 * 4.25 / 8, rel=1e-6)


def test_the_two_machine_lab_s_chat_server() -> None:
    """15 GB of an RTX 5090 for a vision model in FP8."""
    settings = Settings(
        max_model_len=8192, max_num_seqs=64, max_num_batched_tokens=8192, quantization=Quantisation.FP8,
        kv_cache_dtype="fp8", eager=True, gpu_total_bytes=32_105 * MIB, budget_bytes=15 * 10**9,
    )  # fmt: skip
    budget = plan_budget(facts_of("Qwen/Qwen3-VL-4B-Instruct"), settings)
    assert budget.utilisation == Decimal("0.4455")
    assert budget.requested_bytes <= 15 * 10**9
    assert budget.starts
    assert budget.longest_sequence == 8192
    assert budget.smallest_bytes < budget.requested_bytes
    assert "CUDA context" in budget.notes[0]


def test_a_budget_below_the_least_does_not_start() -> None:
    facts = facts_of("meta-llama/Llama-3.1-8B")
    settings = Settings(max_model_len=131_072, max_num_seqs=64, gpu_total_bytes=24_000 * MIB, budget_bytes=18 * GIB)
    budget = plan_budget(facts, settings)
    assert not budget.starts
    assert budget.smallest_bytes > budget.requested_bytes
    assert 0 < budget.longest_sequence < 131_072
    assert plan_budget(facts, replace(settings, max_model_len=budget.longest_sequence)).starts
    longer = replace(settings, max_model_len=budget.longest_sequence + 16 + 1)
    assert not plan_budget(facts, longer).starts


@given(st.integers(1 * GIB, 60 * GIB), st.integers(60 * GIB, 200 * GIB))
def test_the_fraction_never_asks_for_more_than_the_budget(budget: int, total: int) -> None:
    down, up = fraction(budget, total), fraction(budget, total, up=True)
    assert down is not None
    assert up is not None
    assert math.ceil(total * float(down)) <= budget + 1
    assert math.ceil(total * float(up)) >= budget
    assert up - down <= Decimal("0.0001")


def test_without_a_budget_the_least_that_starts_is_asked_for() -> None:
    facts = facts_of("Qwen/Qwen3-8B")
    settings = Settings(max_model_len=8192, gpu_total_bytes=H100, kv_sequences=4)
    budget = plan_budget(facts, settings)
    assert budget.starts
    assert 4 <= budget.concurrency < 5
    footprint = estimate(facts, settings)
    assert footprint.devices[0].context == 4 * 8192 * 36 * 2 * 8 * 128 * 2
    assert footprint.devices[0].total <= budget.requested_bytes


def test_the_footprint_takes_the_whole_budget() -> None:
    facts = facts_of("Qwen/Qwen3-32B")
    footprint = estimate(facts, replace(V1, tensor_parallel=2, budget_bytes=60 * GIB, max_model_len=16000))
    assert [device.total for device in footprint.devices] == [60 * GIB] * 2
    assert footprint.exact
    assert all(step.bytes >= 0 and step.formula and step.source for step in footprint.steps)


def test_caches_of_other_architectures() -> None:
    """MLA stores one vector, a window stops growing, a state takes one page, encoders cache nothing."""
    deepseek = parts_of(facts_of("deepseek-ai/DeepSeek-V2-Lite"), Settings(max_model_len=4096))
    assert deepseek.cache.token_bytes == 27 * 576 * 2
    gemma = parts_of(facts_of("google/gemma-3-12b-it"), Settings(max_model_len=131_072, max_num_batched_tokens=2048))
    assert gemma.cache.groups == (("full", 1), ("sliding", 5))
    assert gemma.cache.block_bytes == 8 * 16 * 2 * 8 * 256 * 2
    assert gemma.cache.sequence_blocks(131_072) == 8192 + 5 * (192 + 1)
    hybrid = parts_of(facts_of("Qwen/Qwen3-Next-80B-A3B-Instruct"), Settings(max_model_len=4096))
    assert hybrid.cache.block_tokens == 544
    assert hybrid.cache.sequence_blocks(4096) == -(-4096 // hybrid.cache.block_tokens) + 3
    assert parts_of(facts_of("BAAI/bge-m3"), Settings(runner=Runner.POOLING)).sequence == 0


QWEN35: dict[str, object] = {
    "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text", "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 3584,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "vocab_size": 248_320,
        "linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "full_attention_interval": 4,
        "tie_word_embeddings": True, "max_position_embeddings": 262_144, "mamba_ssm_dtype": "float32",
        "rope_parameters": {"partial_rotary_factor": 0.25},
    },
    "vision_config": {
        "model_type": "qwen3_5", "depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 1024,
        "deepstack_visual_indexes": [], "num_position_embeddings": 2304,
    },
}  # fmt: skip
"""Qwen3.5-0.8B."""


def test_a_hybrid_s_block_size_and_weights_as_vllm_logs_them() -> None:
    """Attention block size 544 tokens, mamba pages padded by 2.64 %, 1.72 GiB (text index file 53444975736)."""
    parts = parts_of(HfFacts(config=QWEN35, tensors=()), Settings(max_model_len=4096, version="0.19.0"))
    assert parts.cache.block_tokens == 544
    state = 3 * 6144 * 2 + 16 * 128 * 128 * 4
    assert parts.cache.block_bytes / 6 / state == pytest.approx(1.0264, abs=0.0001)
    assert (parts.weights.model + parts.weights.rope) / GIB == pytest.approx(1.72, rel=0.005)


def test_replicated_kv_heads_and_eager_mode() -> None:
    facts = facts_of("Qwen/Qwen2.5-7B-Instruct")
    one, eight = (parts_of(facts, Settings(tensor_parallel=count)).cache.token_bytes for count in (1, 8))
    assert eight == one // 4, "four KV heads are copied, not split, over eight GPUs"
    assert parts_of(facts, Settings(eager=True)).graphs == 0
    assert parts_of(facts, Settings()).graphs > 0


def test_a_pooling_server_has_no_sampler_and_images_can_be_switched_off() -> None:
    facts = facts_of("Qwen/Qwen3-VL-Embedding-2B")
    settings = Settings(runner=Runner.POOLING, max_model_len=2048, max_num_seqs=8, eager=True)
    image = parts_of(facts, settings).peak
    text = parts_of(facts, replace(settings, limit_mm={"image": 0, "video": 0})).peak
    videos = parts_of(facts, replace(settings, limit_mm={"image": 0})).peak
    assert videos == image, "vLLM allows what is not limited"
    small = parts_of(facts, replace(settings, mm_item_tokens=256)).peak
    assert (image.phase, text.phase) == ("vision encoder", "feed-forward")
    assert text.bytes < image.bytes
    assert small.bytes < image.bytes


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "llama"},
        {"hidden_size": 64, "num_hidden_layers": 1 << 30},
        {"hidden_size": "x", "num_hidden_layers": 2},
        {"hidden_size": -4, "num_hidden_layers": 2},
        {"hidden_size": 64, "num_hidden_layers": True},
    ],
)
def test_a_config_that_describes_nothing_is_an_error_in_words(config: dict[str, object]) -> None:
    with pytest.raises(MetadataError, match=r"config\.json"):
        estimate(HfFacts(config=config, tensors=()), Settings())


def test_an_unknown_architecture_is_counted_as_a_common_decoder_and_says_so() -> None:
    footprint = estimate(HfFacts(config={**SMALL, "model_type": "brand_new"}, tensors=()), Settings())
    assert not footprint.exact
    assert any("brand_new" in note for note in footprint.notes)
    assert footprint.devices[0].weights == estimate(HfFacts(config=SMALL, tensors=()), Settings()).devices[0].weights
