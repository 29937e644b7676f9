"""A ``config.json`` is a stranger's text: whatever it says, an answer or a MetadataError comes back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.vram.facts import HfFacts
from labctl.vram.footprint import Footprint
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.layout import ARCHITECTURES
from labctl.vram.vllm import Quantisation, Settings, estimate, plan_budget

NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 8, 64, 128, 1000, 4096, 1 << 39])
ODD = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.lists(st.one_of(NUMBERS, st.text(max_size=2), st.just({})), max_size=4),
    st.integers(-5, 1 << 70),
)
KEYS = [
    "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "max_position_embeddings", "tie_word_embeddings", "sliding_window", "use_sliding_window",
    "layer_types",
    "num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "mlp_only_layers",
    "decoder_sparse_step", "first_k_dense_replace", "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim",
    "qk_nope_head_dim", "v_head_dim", "rope_scaling", "rope_parameters", "partial_rotary_factor",
    "full_attention_interval", "mamba_d_state",
    "mamba_n_heads", "mamba_expand", "mamba_n_groups", "linear_num_value_heads", "linear_value_head_dim",
    "state_size",
    "quantization_config", "text_config", "vision_config", "audio_config", "torch_dtype", "sliding_window_pattern",
    "full_attn_idxs", "attn_layer_period", "attn_layer_offset", "conv_L_cache", "n_shared_experts", "type_vocab_size",
]  # fmt: skip
GOOD = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 1000, "intermediate_size": 128,
    "max_position_embeddings": 4096,
}  # fmt: skip
VISION = st.dictionaries(
    st.sampled_from(["model_type", "hidden_size", "depth", "intermediate_size", "patch_size", "spatial_merge_size",
                     "num_heads", "out_hidden_size", "deepstack_visual_indexes", "image_size", "temporal_patch_size"]),
    st.one_of(ODD, st.sampled_from(["qwen2_5_vl", "qwen3_vl", "glm_ocr_vision"])),
)  # fmt: skip
CONFIGS = st.builds(
    lambda kind, odd, vision: {**GOOD, "model_type": kind, **odd, **({"vision_config": vision} if vision else {})},
    st.sampled_from([*ARCHITECTURES, "brand_new", ""]),
    st.dictionaries(st.sampled_from(KEYS), ODD, max_size=5),
    VISION,
)


@settings(max_examples=200, deadline=None)
@given(CONFIGS, st.sampled_from(list(Quantisation)), st.sampled_from([1, 2, 8]))
def test_any_config_gives_a_footprint_or_a_metadata_error(
    config: dict[str, object], quantisation: Quantisation, parts: int
) -> None:
    options = Settings(quantization=quantisation, tensor_parallel=parts, gpu_total_bytes=10**10, budget_bytes=10**9)
    try:
        footprint = estimate(HfFacts(config=config, tensors=()), options)
        plan_budget(HfFacts(config=config, tensors=()), options)
    except MetadataError as error:
        assert str(error)  # noqa: PT017
    else:
        assert isinstance(footprint, Footprint)
        assert all(device.total >= 0 for device in footprint.devices)
