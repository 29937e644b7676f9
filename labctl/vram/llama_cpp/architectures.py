"""Which graph an architecture has.

Source: llama.cpp b11549, ``src/models/*.cpp``; one row per architecture.
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.vram.llama_cpp import deltanet, encoder, hybrid, latent
from labctl.vram.llama_cpp.experts import Routing
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, build

LLAMA = Recipe(factors=True)
PLAIN = Recipe()

RECIPES: dict[str, Recipe] = {
    "llama": LLAMA,
    "qwen2": PLAIN,
    "qwen3": PLAIN,
    "qwen3moe": PLAIN,
    "qwen2moe": Recipe(routing=Routing(normalised=False), shared="silu_gated"),
    "gemma": Recipe(activation="gelu", scale_q=True),
    "gemma2": Recipe(activation="gelu", scale_q=True, softcap=True, cap_logits=True),
    "gemma3": Recipe(activation="gelu", scale_q=True),
    "gpt-oss": Recipe(
        norm_ffn="post_attention_norm",
        routing=Routing(gating="softmax_weight", normalised=False, activation="swiglu_oai"),
    ),
}
"""Architecture → recipe."""

OWN: dict[str, Callable[[Scene], None]] = {
    "deepseek2": latent.build,
    "mamba": hybrid.build_mamba,
    "mamba2": hybrid.build_mamba,
    "granitehybrid": hybrid.build_granite,
    "lfm2": hybrid.build_lfm2,
    "lfm2moe": hybrid.build_lfm2,
    "qwen3next": deltanet.build,
    "bert": encoder.build,
    "nomic-bert": encoder.build,
    "nomic-bert-moe": encoder.build,
    "jina-bert-v2": encoder.build,
    "jina-bert-v3": encoder.build,
}
"""Architecture → builder of its own."""


def builder(arch: str) -> tuple[Callable[[Scene], None], bool]:
    """The function that builds an architecture's graph, and whether it is that architecture's own."""
    own = OWN.get(arch)
    if own is not None:
        return own, True
    recipe = RECIPES.get(arch)
    if recipe is None:
        return (lambda scene: build(scene, PLAIN)), False
    return (lambda scene: build(scene, recipe)), True
