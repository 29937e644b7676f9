"""Models of Mamba, attention and short-convolution layers, pure or mixed.

Source: llama.cpp b11549, ``src/models/mamba.cpp``, ``jamba.cpp``, ``granite-hybrid.cpp``, ``nemotron-h.cpp``,
``falcon-h1.cpp``, ``lfm2.cpp``.
"""

from __future__ import annotations

from labctl.vram.llama_cpp.blocks import norm_of
from labctl.vram.llama_cpp.experts import Routing
from labctl.vram.llama_cpp.graph import like
from labctl.vram.llama_cpp.recurrent import mamba, mamba2, short_convolution
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, finish, mixed, rows, scaled_residual, self_attention

_GRANITE = Recipe(rope="none", factors=True)
_JAMBA = Recipe(rope="none", routing=Routing(normalised=False))
_PLAIN = Recipe()


def build_mamba(scene: Scene) -> None:
    """Mamba and Mamba-2: a scan and a residual per block."""
    layer = mamba2 if scene.model.arch == "mamba2" else mamba
    x = scene.embedded()
    for il in scene.sequence:
        y = layer(scene, il, norm_of(scene, il, "attn_norm", x))
        if il == scene.last:
            y, x = rows(scene, y), rows(scene, x)
        x = like("ADD", y, x)
    finish(scene, _PLAIN, x)


def build_granite(scene: Scene) -> None:
    """Granite 4 hybrids: Mamba-2 or attention, then feed-forward or experts."""
    recipe = Recipe(rope="all" if scene.model.flag("rope.scaling.finetuned", default=False) else "none", factors=True)
    x = scene.embedded()
    for il in scene.sequence:
        y = norm_of(scene, il, "attn_norm", x)
        y = mamba2(scene, il, y) if scene.model.recurrent(il) else self_attention(scene, recipe, il, y)
        if il == scene.last:
            y, x = rows(scene, y), rows(scene, x)
        middle = like("ADD", scaled_residual(scene, y), x)
        y = mixed(scene, recipe, il, norm_of(scene, il, "ffn_norm", middle))
        x = like("ADD", scaled_residual(scene, y), middle)
    finish(scene, _GRANITE, x)


def build_lfm2(scene: Scene) -> None:
    """LFM2: short convolutions and attention."""
    recipe = Recipe(routing=Routing(gating="sigmoid"))
    x = scene.embedded()
    for il in scene.sequence:
        y = norm_of(scene, il, "attn_norm", x)
        y = short_convolution(scene, il, y) if scene.model.recurrent(il) else self_attention(scene, recipe, il, y)
        if il == scene.last:
            y, x = rows(scene, y), rows(scene, x)
        x = like("ADD", x, y)
        x = like("ADD", x, mixed(scene, recipe, il, norm_of(scene, il, "ffn_norm", x)))
    finish(scene, recipe, x)


__all__ = ["_JAMBA", "build_granite", "build_lfm2", "build_mamba"]
