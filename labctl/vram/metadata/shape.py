"""A model's hyper-parameters under one set of names, whatever its ``config.json`` calls them.

Sources: transformers 4.57 ``configuration_*.py`` (names and defaults), vLLM 0.33
``transformers_utils/model_arch_config_convertor.py`` (which of several names wins), llama.cpp b11549
``convert_hf_to_gguf.py`` (what becomes of them in a GGUF file).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labctl.values import dataclass
from labctl.vram.metadata.errors import MetadataError

Config = Mapping[str, object]

FULL, SLIDING, RECURRENT = "full", "sliding", "recurrent"
_KINDS = {
    "full_attention": FULL, "attention": FULL, "global": FULL, "sliding_attention": SLIDING, "local": SLIDING,
    "chunked_attention": SLIDING, "linear_attention": RECURRENT, "conv": RECURRENT, "mamba": RECURRENT,
    "mamba2": RECURRENT, "recurrent": RECURRENT,
}  # fmt: skip
LISTS_KV_HEADS = frozenset({"jamba", "lfm2", "lfm2_moe", "granitemoehybrid"})
"""Kinds whose GGUF files list KV heads per layer, 0 for recurrent ones."""
MAX_LAYERS = 4096
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config", "decoder_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Numbers of elements unless said otherwise; 0 where a model has no such part.

    Attributes:
        kinds: per layer ``full``, ``sliding`` or ``recurrent``.
        moe: per layer, whether its feed-forward part is a mixture of experts.
        latent: rank of the compressed K and V of MLA (``kv_lora_rank``).
        rope: width of the rotary part of a head.
        nope: width of an MLA head's part without position.
        window: tokens that a sliding layer sees.
        inner, state, conv, rank, groups: of state-space layers: channels, state width, convolution length, rank of the
            time step (or its heads), groups.
    """

    type: str
    layers: int
    hidden: int
    ff: int
    heads: int
    kv_heads: int
    head: int
    value_head: int
    vocab: int
    context: int
    tied: bool
    kinds: tuple[str, ...]
    moe: tuple[bool, ...]
    window: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_ff: int = 0
    shared_ff: int = 0
    latent: int = 0
    query_latent: int = 0
    rope: int = 0
    nope: int = 0
    inner: int = 0
    state: int = 0
    conv: int = 0
    rank: int = 0
    groups: int = 0
    attention_bias: bool = False
    qk_norm: bool = False


def text_config(config: Config) -> Config:
    """Return the part of a multimodal config that describes the language model; keys outside it serve as defaults."""
    for name in _TEXT:
        inner = config.get(name)
        if isinstance(inner, Mapping) and inner:
            outer = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
            return text_config({**outer, **inner})
    return config


def integer(config: Config, *names: str, default: int = 0) -> int:
    """Return the first of the named numbers that is present and not null.

    Raises:
        MetadataError: it is no whole number, or absurd.
    """
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, list) and value and all(isinstance(element, int) for element in value):
            value = max(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
            raise MetadataError(summary=f"`{name}` in config.json is {value!r}, not a sane whole number")
        return int(value)
    return default


def positive(config: Config, *names: str, default: int = 1) -> int:
    """Return the number like ``integer``, and ``default`` also where it is 0: for what one divides by."""
    return integer(config, *names) or default


def count(config: Config, *names: str) -> int:
    """Return a number of layers.

    Raises:
        MetadataError: it is no whole number, or more than any model has.
    """
    layers = integer(config, *names)
    if layers > MAX_LAYERS:
        raise MetadataError(summary=f"`{names[0]}` in config.json is {layers}, more than any model has")
    return layers


def read_shape(config: Config) -> Shape:
    """Return the shape of the language model that a ``config.json`` describes.

    Raises:
        MetadataError: numbers that every transformer has are missing or absurd.
    """
    text = text_config(config)
    layers = integer(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    hidden = integer(text, "hidden_size", "n_embd", "d_model", "dim")
    if not 0 < layers <= MAX_LAYERS or not hidden:
        raise MetadataError(
            summary=f"config.json describes no language model: {layers} layers of width {hidden}",
            hint="point at a model folder whose config.json has num_hidden_layers and hidden_size",
        )
    kind = str(text.get("model_type", config.get("model_type", "")))
    heads = integer(text, "num_attention_heads", "n_head", "num_heads", "n_heads")
    head = integer(text, "head_dim", "attention_head_dim", default=hidden // heads if heads else 0)
    experts = integer(text, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    experts = experts if experts > 1 else 0
    latent = integer(text, "kv_lora_rank")
    nope, rope = integer(text, "qk_nope_head_dim"), integer(text, "qk_rope_head_dim")
    ff = _feed_forward(text, kind, hidden)
    return Shape(
        type=kind,
        layers=layers,
        hidden=hidden,
        ff=ff,
        heads=heads,
        kv_heads=integer(text, "num_key_value_heads", "num_kv_heads", "multi_query_group_num", default=heads),
        head=nope + rope if latent else head,
        value_head=integer(text, "v_head_dim", default=head),
        vocab=integer(text, "vocab_size", "padded_vocab_size"),
        context=integer(text, "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"),
        tied=_tied(text, kind),
        kinds=_layer_kinds(text, kind, layers, heads),
        moe=_moe_layers(text, layers) if experts else (False,) * layers,
        window=integer(text, "sliding_window", "attention_window_size") if _slides(text, kind) else 0,
        experts=experts,
        experts_used=integer(text, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "experts_per_token"),
        expert_ff=integer(text, "moe_intermediate_size", "expert_intermediate_size", default=ff) if experts else 0,
        shared_ff=_shared(text),
        latent=latent,
        query_latent=integer(text, "q_lora_rank"),
        rope=rope or int(head * _fraction(text)),
        nope=nope,
        attention_bias=_attention_bias(text, kind),
        qk_norm=kind in _QK_NORM or bool(text.get("use_qk_norm")),
        **_state_space(text, kind, hidden),
    )


_QK_NORM = frozenset(
    {"qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text", "qwen3_next", "gemma3", "gemma3_text", "lfm2",
     "lfm2_moe", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_text", "qwen3_5_moe",
     "qwen3_5_moe_text", "qwen3_asr_text", "qwen3_asr", "hunyuan_v1_dense"}
)  # fmt: skip
_TIED = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "lfm2", "lfm2_moe", "bert", "xlm-roberta", "nomic_bert"})


def _tied(text: Config, kind: str) -> bool:
    value = text.get("tie_word_embeddings", text.get("tie_embedding"))
    return bool(value) if value is not None else kind in _TIED


def _attention_bias(text: Config, kind: str) -> bool:
    if kind in {"qwen2", "qwen2_moe", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "bert", "gpt_oss"}:
        return True
    return bool(text.get("attention_bias") or text.get("add_qkv_bias") or text.get("use_qkv_bias")) or kind in {
        "xlm-roberta",
        "roberta",
    }


def _feed_forward(text: Config, kind: str, hidden: int) -> int:
    if kind in {"mamba", "falcon_mamba"}:
        return 0
    return integer(
        text, "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "block_ff_dim", default=4 * hidden
    )


def _shared(text: Config) -> int:
    """Return the width of all shared experts together (DeepSeek counts them, Qwen and Granite give the width)."""
    width = integer(text, "shared_expert_intermediate_size", "shared_intermediate_size")
    return width or integer(text, "n_shared_experts") * integer(text, "moe_intermediate_size")


def _fraction(text: Config) -> float:
    """Return which part of a head is rotated."""
    nested = text.get("rope_parameters")
    value = text.get("partial_rotary_factor", nested.get("partial_rotary_factor") if isinstance(nested, dict) else None)
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else 1.0


def _slides(text: Config, kind: str) -> bool:
    """Whether the model's window is in use: Qwen carries one that it switches off."""
    if "use_sliding_window" in text:
        return bool(text["use_sliding_window"])
    return kind not in {"qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen3_moe"}


def _layer_kinds(text: Config, kind: str, layers: int, heads: int) -> tuple[str, ...]:
    listed = text.get("layer_types") or text.get("layers_block_type") or text.get("layer_type_list")
    if isinstance(listed, Sequence) and not isinstance(listed, str) and len(listed) >= layers:
        kinds = tuple(_KINDS.get(str(entry), FULL) for entry in listed[:layers])
        return kinds if _slides(text, kind) else tuple(FULL if entry == SLIDING else entry for entry in kinds)
    if kind in {"mamba", "mamba2", "falcon_mamba"} or not heads:
        return (RECURRENT,) * layers
    every = integer(text, "full_attention_interval", "attn_layer_period")
    if every:
        full_at = integer(text, "attn_layer_offset", default=every - 1)
        return tuple(FULL if index % every == full_at else RECURRENT for index in range(layers))
    indices = text.get("full_attn_idxs")
    if isinstance(indices, list):
        return tuple(FULL if index in indices else RECURRENT for index in range(layers))
    return _sliding_kinds(text, kind, layers)


def _sliding_kinds(text: Config, kind: str, layers: int) -> tuple[str, ...]:
    if not integer(text, "sliding_window", "attention_window_size") or not _slides(text, kind):
        return (FULL,) * layers
    defaults = {"gemma2": 2, "cohere2": 4, "gemma3": 6, "gemma3_text": 6, "gpt_oss": 2}
    pattern = integer(text, "sliding_window_pattern", "_sliding_window_pattern", default=defaults.get(kind, 0))
    if not pattern:
        return (SLIDING,) * layers
    return tuple(FULL if (index + 1) % pattern == 0 else SLIDING for index in range(layers))


def _moe_layers(text: Config, layers: int) -> tuple[bool, ...]:
    dense_lead = integer(text, "first_k_dense_replace", "num_dense_layers")
    step = integer(text, "decoder_sparse_step", "moe_layer_freq", "expert_layer_period", default=1) or 1
    offset = integer(text, "expert_layer_offset", default=step - 1)
    listed = text.get("mlp_only_layers")
    dense = set(listed) if isinstance(listed, list) else set()
    return tuple(
        index >= dense_lead and index % step == offset % step and index not in dense for index in range(layers)
    )


def _state_space(text: Config, kind: str, hidden: int) -> dict[str, int]:
    """Return inner, state, conv, rank and groups of the recurrent layers."""
    if "linear_num_value_heads" in text:
        value_heads = integer(text, "linear_num_value_heads")
        return {
            "inner": value_heads * integer(text, "linear_value_head_dim"),
            "state": integer(text, "linear_key_head_dim"),
            "conv": integer(text, "linear_conv_kernel_dim"),
            "rank": value_heads,
            "groups": integer(text, "linear_num_key_heads"),
        }
    if kind in {"lfm2", "lfm2_moe"}:
        return {"conv": integer(text, "conv_L_cache", default=3)}
    state = integer(text, "mamba_d_state", "state_size", "ssm_state_size")
    if not state:
        return {}
    expand = integer(text, "mamba_expand", "expand", default=2)
    inner = integer(text, "mamba_d_ssm", "intermediate_size" if kind == "falcon_mamba" else "") or expand * hidden
    ssm_heads = integer(text, "mamba_n_heads", "mamba_num_heads")
    return {
        "inner": inner,
        "state": state,
        "conv": integer(text, "mamba_d_conv", "conv_kernel", default=4),
        "rank": ssm_heads or integer(text, "mamba_dt_rank", "time_step_rank", default=-(-hidden // 16)),
        "groups": integer(text, "mamba_n_groups", "n_groups", default=1 if ssm_heads else 0),
    }
