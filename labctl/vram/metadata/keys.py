"""The GGUF keys that a converted model carries, from its shape.

Source: llama.cpp b11549 ``convert_hf_to_gguf.py`` and ``gguf-py/gguf/constants.py`` (``Keys``).
"""

from __future__ import annotations

from collections.abc import Mapping

from labctl.vram.facts import Value
from labctl.vram.metadata.shape import FULL, LISTS_KV_HEADS, RECURRENT, SLIDING, Config, Shape, integer

_EXPERT_WIDTH = frozenset({"qwen3moe", "qwen3vlmoe", "qwen3next", "deepseek2", "gpt-oss", "lfm2moe"})
_ENCODERS = frozenset({"bert", "nomic-bert"})


def gguf_keys(architecture: str, shape: Shape, config: Config) -> dict[str, Value]:
    """Return ``general.architecture`` and the ``<architecture>.…`` keys that decide about memory."""
    keys: dict[str, Value | None] = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.ff,
        "vocab_size": shape.vocab,
        **_attention(architecture, shape),
        **_rope(shape, config),
        **_experts(architecture, shape, config),
        **_state_space(architecture, shape),
    }
    kept = {key: value for key, value in keys.items() if value is not None}
    return {"general.architecture": architecture, **{f"{architecture}.{key}": value for key, value in kept.items()}}


def _attention(architecture: str, shape: Shape) -> Mapping[str, Value | None]:
    if not shape.heads:
        return {"attention.head_count": 0}
    latent = shape.latent
    return {
        "attention.head_count": shape.heads,
        "attention.head_count_kv": _kv_heads(shape),
        "attention.key_length": latent + shape.rope if latent else shape.head,
        "attention.value_length": latent or shape.value_head,
        "attention.key_length_mla": shape.head if latent else None,
        "attention.value_length_mla": shape.value_head if latent else None,
        "attention.kv_lora_rank": latent or None,
        "attention.q_lora_rank": shape.query_latent or None,
        "attention.sliding_window": shape.window if SLIDING in shape.kinds and architecture != "llama" else None,
        "attention.causal": False if architecture in _ENCODERS else None,
    }


def _kv_heads(shape: Shape) -> Value:
    """One number; or one per layer, 0 for recurrent layers, where attention and state-space layers mix."""
    if shape.latent:
        return 1
    listed = RECURRENT in shape.kinds and shape.type in LISTS_KV_HEADS
    return tuple(0 if kind == RECURRENT else shape.kv_heads for kind in shape.kinds) if listed else shape.kv_heads


def _rope(shape: Shape, config: Config) -> Mapping[str, Value | None]:
    base = config.get("rope_theta")
    scaling = config.get("rope_scaling")
    stretch = scaling if isinstance(scaling, dict) and scaling.get("type", scaling.get("rope_type")) == "yarn" else {}
    return {
        "rope.dimension_count": shape.rope or None if shape.heads else None,
        "rope.freq_base": float(base) if isinstance(base, int | float) else None,
        "rope.scaling.type": "yarn" if stretch else None,
        "rope.scaling.factor": stretch.get("factor"),
        "rope.scaling.original_context_length": stretch.get("original_max_position_embeddings"),
    }


def _experts(architecture: str, shape: Shape, config: Config) -> Mapping[str, Value | None]:
    if not shape.experts:
        return {}
    return {
        "expert_count": shape.experts,
        "expert_used_count": shape.experts_used,
        "expert_feed_forward_length": shape.expert_ff if architecture in _EXPERT_WIDTH else None,
        "expert_shared_count": integer(config, "n_shared_experts") or None,
        "expert_shared_feed_forward_length": shape.shared_ff or None if architecture != "deepseek2" else None,
        "leading_dense_block_count": integer(config, "first_k_dense_replace", "num_dense_layers") or None,
    }


def _state_space(architecture: str, shape: Shape) -> Mapping[str, Value | None]:
    if RECURRENT not in shape.kinds:
        return {}
    if not shape.inner:
        return {"shortconv.l_cache": shape.conv}
    first = shape.kinds.index(FULL) if FULL in shape.kinds else 0
    return {
        "ssm.conv_kernel": shape.conv,
        "ssm.inner_size": shape.inner,
        "ssm.state_size": shape.state,
        "ssm.time_step_rank": shape.rank,
        "ssm.group_count": shape.groups or None,
        "ssm.dt_b_c_rms": True if shape.type == "falcon_mamba" else None,
        "full_attention_interval": first + 1 if architecture == "qwen3next" else None,
    }
