"""Which graph an architecture has.

Source: llama.cpp b11549, ``src/models/*.cpp``; one row per architecture.
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.vram.llama_cpp import deltanet, encoder, fallback, gemma, hybrid, latent
from labctl.vram.llama_cpp.experts import Routing
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, build

PLAIN = Recipe()
FIXED = Routing(from_file=False)
"""Softmax over all experts, then the chosen weights normalised, whatever the file says."""
UNNORMALISED = Routing(normalised=False, from_file=False)
LLAMA = Recipe(factors=True, routing=FIXED)
GPT = Recipe(norm="NORM", activation="gelu", rope="none")

RECIPES: dict[str, Recipe] = {
    "afmoe": Recipe(rope="not_fourth", gated_attention=True),
    "apertus": Recipe(factors=True, activation="xielu"),
    "arcee": Recipe(factors=True, activation="relu_sqr"),
    "baichuan": Recipe(rope="small"),
    "bailingmoe": Recipe(factors=True, routing=UNNORMALISED),
    "bailingmoe2": Recipe(),
    "bloom": GPT,
    "chatglm": Recipe(activation="swiglu"),
    "codeshell": Recipe(norm="NORM", activation="gelu"),
    "cohere2": Recipe(norm="NORM", residual="fia", rope="sliding", factors=True),
    "cohere2moe": Recipe(residual="fia", rope="sliding", factors=True, shared="halved"),
    "command-r": Recipe(norm="NORM", residual="fia"),
    "dbrx": Recipe(norm="NORM", norm_ffn="attn_output_norm", routing=FIXED),
    "deci": LLAMA,
    "deepseek": Recipe(factors=True, routing=UNNORMALISED),
    "dots1": PLAIN,
    "dream": PLAIN,
    "ernie4_5": PLAIN,
    "ernie4_5-moe": PLAIN,
    "exaone": LLAMA,
    "exaone4": Recipe(norm_in="", norm_ffn="", rope="sliding_or_all", factors=True),
    "exaone-moe": Recipe(rope="sliding_or_all"),
    "falcon": Recipe(norm="NORM", activation="gelu", residual="fai"),
    "gemma": Recipe(activation="gelu", scale_q=True),
    "gemma2": Recipe(activation="gelu", scale_q=True, softcap=True, cap_logits=True),
    "gemma3": Recipe(activation="gelu", scale_q=True),
    "gemma-embedding": Recipe(activation="gelu", scale_q=True),
    "glm4": Recipe(activation="swiglu"),
    "glm4moe": Recipe(norm_ffn="post_attention_norm"),
    "gpt-oss": Recipe(
        norm_ffn="post_attention_norm",
        routing=Routing(gating="softmax_weight", normalised=False, activation="swiglu_oai", from_file=False),
    ),
    "gpt2": GPT,
    "gptneox": Recipe(norm="NORM", activation="gelu", residual="by_file"),
    "grok": Recipe(
        activation="gelu",
        norm_after=("attn_output_norm", "layer_output_norm"),
        shared="dense",
        scale_logits=True,
        routing=Routing(activation="gelu", from_file=False),
    ),
    "granite": LLAMA,
    "granitemoe": LLAMA,
    "hunyuan-dense": Recipe(norm_q="late", factors=True),
    "hunyuan-moe": Recipe(norm_q="late", factors=True, shared="first", routing=FIXED),
    "hunyuan_vl": Recipe(norm_q="late", factors=True),
    "hy_v3": PLAIN,
    "internlm2": PLAIN,
    "jais": Recipe(norm="NORM", rope="none"),
    "jais2": Recipe(norm="NORM", activation="relu_sqr"),
    "llada": PLAIN,
    "llada-moe": Recipe(routing=UNNORMALISED),
    "llama": LLAMA,
    "llama-embed": LLAMA,
    "llama4": Recipe(
        norm_q="bare",
        rope="not_fourth",
        factors=True,
        temperature=True,
        routing=Routing(gating="sigmoid", normalised=False, weigh_first=True, from_file=False),
    ),
    "maincoder": Recipe(norm_q="late"),
    "mellum": PLAIN,
    "minicpm": LLAMA,
    "minimax-m2": Recipe(norm_q="full", routing=Routing(gating="sigmoid")),
    "mistral3": LLAMA,
    "mpt": GPT,
    "nanbeige": LLAMA,
    "nemotron": Recipe(norm="NORM", activation="relu_sqr"),
    "olmo": Recipe(norm="NORM"),
    "olmo2": Recipe(norm_in="", norm_ffn="", norm_q="full"),
    "olmoe": Recipe(norm_q="full", routing=UNNORMALISED),
    "orion": Recipe(norm="NORM"),
    "grovemoe": PLAIN,
    "mimo2": PLAIN,
    "paddleocr": PLAIN,
    "pangu-embedded": PLAIN,
    "pockettts": PLAIN,
    "phi2": Recipe(norm="NORM", activation="gelu", residual="afi", scale_q=True),
    "phi3": Recipe(activation="swiglu", factors=True, scale_q=True, routing=FIXED),
    "phimoe": Recipe(activation="swiglu", factors=True, scale_q=True, routing=FIXED),
    "plamo": Recipe(residual="fai"),
    "plamo3": Recipe(activation="swiglu"),
    "qwen": PLAIN,
    "qwen2": PLAIN,
    "qwen2moe": Recipe(routing=UNNORMALISED, shared="silu_gated"),
    "qwen2vl": PLAIN,
    "qwen3": PLAIN,
    "qwen3moe": Recipe(routing=FIXED),
    "qwen3tts": PLAIN,
    "qwen3vl": PLAIN,
    "qwen3vlmoe": Recipe(routing=FIXED),
    "refact": Recipe(rope="none"),
    "rnd1": Recipe(routing=FIXED),
    "seed_oss": Recipe(norm_ffn="post_attention_norm"),
    "smallthinker": Recipe(rope="not_first", early_scores=True, routing=Routing(gating="sigmoid", activation="relu")),
    "smollm3": Recipe(rope="not_fourth"),
    "stablelm": Recipe(norm="NORM", reuse_norm=True),
    "starcoder": GPT,
    "starcoder2": Recipe(norm="NORM", activation="gelu"),
    "xverse": PLAIN,
}
"""Architecture → recipe."""

OWN: dict[str, Callable[[Scene], None]] = {
    "gemma3n": gemma.build3n,
    "gemma4": gemma.build4,
    "deepseek2": latent.build,
    "mamba": hybrid.build_mamba,
    "mamba2": hybrid.build_mamba,
    "granitehybrid": hybrid.build_granite,
    "jamba": hybrid.build_jamba,
    "nemotron_h": hybrid.build_nemotron,
    "nemotron_h_moe": hybrid.build_nemotron,
    "falcon-h1": hybrid.build_falcon,
    "lfm2": hybrid.build_lfm2,
    "lfm2moe": hybrid.build_lfm2,
    "minicpm3": latent.build,
    "mistral4": latent.build,
    "qwen3next": deltanet.build,
    "qwen35": deltanet.build,
    "qwen35moe": deltanet.build,
    "bert": encoder.build,
    "nomic-bert": encoder.build,
    "nomic-bert-moe": encoder.build,
    "jina-bert-v2": encoder.build,
    "jina-bert-v3": encoder.build,
}
"""Architecture → builder of its own."""


def known(arch: str) -> bool:
    """Whether an architecture has a graph of its own here."""
    return arch in OWN or arch in RECIPES


def builders(arch: str) -> list[Callable[[Scene], None]]:
    """The functions that build an architecture's graph; of several, the largest buffers count."""
    own = OWN.get(arch)
    if own is not None:
        return [own]
    recipe = RECIPES.get(arch)
    if recipe is not None:
        return [lambda scene: build(scene, recipe)]
    return [lambda scene: build(scene, PLAIN), fallback.build]
