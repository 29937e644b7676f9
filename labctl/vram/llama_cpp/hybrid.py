"""Models of Mamba, attention and short-convolution layers, pure or mixed.

Source: llama.cpp b11549, ``src/models/mamba.cpp``, ``jamba.cpp``, ``granite-hybrid.cpp``, ``nemotron-h.cpp``,
``falcon-h1.cpp``, ``lfm2.cpp``.
"""

from __future__ import annotations

from labctl.vram.llama_cpp.blocks import feed_forward, norm_of
from labctl.vram.llama_cpp.experts import Routing, experts, routing_of
from labctl.vram.llama_cpp.graph import Node, like, mul_mat
from labctl.vram.llama_cpp.recurrent import mamba, mamba2, short_convolution
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, finish, mixed, rows, scaled_residual, self_attention

_PLAIN = Recipe()
_JAMBA = Recipe(rope="none", routing=Routing(normalised=False, from_file=False))
_NEMOTRON = Recipe(
    rope="none",
    activation="relu_sqr",
    routing=Routing(gating="sigmoid", activation="relu_sqr"),
    norm_ffn="",
)


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
    rotated = scene.model.flag("rope.scaling.finetuned", default=True)
    recipe = Recipe(rope="all" if rotated else "none", factors=True, routing=Routing(from_file=False))
    x = scene.embedded()
    for il in scene.sequence:
        y = norm_of(scene, il, "attn_norm", x)
        y = mamba2(scene, il, y) if scene.model.recurrent(il) else self_attention(scene, recipe, il, y)
        if il == scene.last:
            y, x = rows(scene, y), rows(scene, x)
        middle = like("ADD", scaled_residual(scene, y), x)
        y = mixed(scene, recipe, il, norm_of(scene, il, "ffn_norm", middle))
        x = like("ADD", scaled_residual(scene, y), middle)
    finish(scene, recipe, x)


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


def build_jamba(scene: Scene) -> None:
    """Jamba: Mamba or attention without positions, then feed-forward or experts."""
    x = scene.embedded()
    for il in scene.sequence:
        y = norm_of(scene, il, "attn_norm", x)
        y = mamba(scene, il, y) if scene.model.recurrent(il) else self_attention(scene, _JAMBA, il, y)
        if il == scene.last:
            y, x = rows(scene, y), rows(scene, x)
        x = like("ADD", x, y)
        x = like("ADD", x, mixed(scene, _JAMBA, il, norm_of(scene, il, "ffn_norm", x)))
    finish(scene, _JAMBA, x)


def build_nemotron(scene: Scene) -> None:
    """Nemotron-H: every block is a Mamba-2, an attention or a feed-forward layer alone."""
    x = scene.embedded()
    for il in scene.sequence:
        y = norm_of(scene, il, "attn_norm", x)
        if scene.model.recurrent(il):
            y = mamba2(scene, il, y)
        elif scene.cache.attends(il):
            y = self_attention(scene, _NEMOTRON, il, y)
        else:
            y = _nemotron_feed_forward(scene, il, y)
        if il == scene.last:
            y, x = rows(scene, y), rows(scene, x)
        x = like("ADD", y, x)
    finish(scene, _NEMOTRON, x)


def _nemotron_feed_forward(scene: Scene, il: int, x: Node) -> Node:
    if not scene.has(il, "ffn_gate_inp"):
        return feed_forward(scene, il, x, "relu_sqr", gate=False)
    inner = x
    if scene.has(il, "ffn_latent_down"):
        inner = mul_mat(scene.weight(il, "ffn_latent_down"), x)
    scores = mul_mat(scene.weight(il, "ffn_gate_inp"), x)
    routed = experts(scene, il, inner, routing_of(scene, _NEMOTRON.routing), scores)
    if scene.has(il, "ffn_latent_up"):
        routed = mul_mat(scene.weight(il, "ffn_latent_up"), routed)
    return like("ADD", routed, feed_forward(scene, il, x, "relu_sqr", "_shexp", gate=False))


def build_falcon(scene: Scene) -> None:
    """Falcon-H1: attention and Mamba-2 side by side in every block."""
    x = scene.embedded()
    for il in scene.sequence:
        y = self_attention(scene, _PLAIN, il, norm_of(scene, il, "attn_norm", x))
        z = mamba2(scene, il, norm_of(scene, il, "attn_norm", x))
        x = like("ADD", like("ADD", y, z), x)
        if il == scene.last:
            x = rows(scene, x)
        x = like("ADD", feed_forward(scene, il, norm_of(scene, il, "ffn_norm", x), "silu"), x)
    finish(scene, _PLAIN, x)
