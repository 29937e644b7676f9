"""Transformers whose blocks follow one plan: norm, attention, residual, norm, feed-forward or experts, residual.

What differs between architectures is a ``Recipe``; what a model file shows by having a tensor (biases, gates, norms
after attention, shared experts) is read from the file.

Source: llama.cpp b11549, the ``graph`` constructors in ``src/models/*.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labctl.vram.llama_cpp.blocks import attention, feed_forward, linear, norm, norm_of, queries_keys_values, rotate
from labctl.vram.llama_cpp.blocks import uncached_attention
from labctl.vram.llama_cpp.experts import Routing, experts, routing_of
from labctl.vram.llama_cpp.graph import Node, concat, get_rows, glu, like, mul_mat, reshape, unary, view
from labctl.vram.llama_cpp.model import NO_CACHE
from labctl.vram.llama_cpp.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the blocks of an architecture differ from the plainest transformer (Llama's).

    Attributes:
        norm: ``RMS_NORM`` or ``NORM``.
        activation: of the feed-forward layer.
        residual: ``serial``; ``parallel``: feed-forward and attention read the same normed input;
            ``parallel_own``: the feed-forward has its own norm of the block's input.
        norm_in: names of the norm before attention; empty: none.
        norm_ffn: name of the norm before the feed-forward layer.
        norm_q: when Q and K are normed: ``head`` before rotation, ``full`` over all heads, ``late`` after rotation.
        norm_q_kind: kind of that norm.
        rope: ``all``, ``none``, ``sliding`` (only sliding-window layers), ``no_fourth`` (every fourth layer without).
        factors: rotation uses frequency factors when the file has them.
        scale_q: Q is multiplied by a constant after rotation.
        softcap: attention scores are capped when flash attention is off.
        cap_logits: logits are capped; None: when the file gives a cap.
        scale_logits: logits are multiplied by a constant; None: when the file gives one.
        scale_residual: attention and feed-forward outputs are multiplied by a constant when the file gives one.
        sinks: attention sinks are used when the file has them.
        routing: how experts are chosen.
        shared: how the shared expert is added: ``plain``, ``gated`` (by a sigmoid), ``silu_gated`` (qwen2moe),
            ``before`` (added before the routed ones are).
        crop_embeddings: unused tokens are dropped in the last block (not with multi-token prediction).
    """

    norm: str = "RMS_NORM"
    activation: str = "silu"
    residual: str = "serial"
    norm_in: str = "attn_norm"
    norm_ffn: str = "ffn_norm"
    norm_q: str = "head"
    norm_q_kind: str = ""
    rope: str = "all"
    factors: bool = False
    scale_q: bool = False
    softcap: bool = False
    cap_logits: bool | None = None
    scale_logits: bool | None = None
    sinks: bool = True
    routing: Routing = field(default_factory=Routing)
    shared: str = "plain"


def build(scene: Scene, recipe: Recipe) -> None:
    """Build the whole graph."""
    x = scene.embedded()
    for il in scene.sequence:
        x = block(scene, recipe, il, x)
    finish(scene, recipe, x)


def block(scene: Scene, recipe: Recipe, il: int, x: Node) -> Node:
    """One block: [width, tokens] → [width, tokens], the outputs' rows only after the last one."""
    residual = x
    normed = norm_of(scene, il, recipe.norm_in, x, recipe.norm) if recipe.norm_in else x
    y = self_attention(scene, recipe, il, normed)
    if il == scene.last:
        y, residual = rows(scene, y), rows(scene, residual)
        if recipe.residual == "parallel":
            normed = rows(scene, normed)
    y = after(scene, il, "post_attention_norm", y, recipe)
    y = scaled_residual(scene, y)
    if recipe.residual == "parallel":
        z = mixed(scene, recipe, il, normed)
        return like("ADD", like("ADD", z, residual), y)
    if recipe.residual == "parallel_own":
        z = mixed(scene, recipe, il, norm_of(scene, il, recipe.norm_ffn, residual, recipe.norm))
        return like("ADD", like("ADD", z, residual), y)
    middle = like("ADD", y, residual)
    z = middle if not recipe.norm_ffn else norm_of(scene, il, recipe.norm_ffn, middle, recipe.norm)
    z = mixed(scene, recipe, il, z)
    z = scaled_residual(scene, after(scene, il, "post_ffw_norm", z, recipe))
    return like("ADD", z, middle)


def rows(scene: Scene, x: Node) -> Node:
    """Only the rows of tokens whose logits are wanted."""
    return get_rows(x, scene.output_rows)


def after(scene: Scene, il: int, name: str, x: Node, recipe: Recipe) -> Node:
    """A norm behind attention or feed-forward, where the file has one that is not used elsewhere."""
    if name == recipe.norm_ffn or not scene.has(il, name):
        return x
    return norm_of(scene, il, name, x, recipe.norm)


def scaled_residual(scene: Scene, x: Node) -> Node:
    """Granite's and MiniCPM's factor on what is added to the residual stream."""
    if scene.model.real("residual_scale") or scene.model.arch == "minicpm":
        return like("SCALE", x)
    return x


def self_attention(scene: Scene, recipe: Recipe, il: int, x: Node) -> Node:
    """Projections, norms, rotation, attention, output projection."""
    full = recipe.norm_q == "full"
    q, k, v = queries_keys_values(scene, il, x, heads=not full)
    kind = recipe.norm_q_kind or recipe.norm
    if recipe.norm_q in {"head", "full"}:
        q, k = (_normed(scene, il, name, part, kind) for name, part in (("attn_q_norm", q), ("attn_k_norm", k)))
    if full:
        model, n = scene.model, x.ne[1]
        q = reshape(q, model.head_k(il), model.heads(il), n)
        k = reshape(k, model.head_k(il), model.kv_heads(il), n)
        v = reshape(v, model.head_v(il), model.kv_heads(il), n)
    if rotates(scene, recipe, il):
        q, k = (rotate(scene, part, il, factors=recipe.factors) for part in (q, k))
    if recipe.norm_q == "late":
        q, k = (_normed(scene, il, name, part, kind) for name, part in (("attn_q_norm", q), ("attn_k_norm", k)))
    if recipe.scale_q:
        q = like("SCALE", q)
    if scene.model.arch in NO_CACHE:
        return uncached_attention(scene, il, q, k, v)
    sinks = scene.find(il, "attn_sinks") if recipe.sinks else None
    return attention(scene, il, q, k, v, sinks=sinks, softcap=recipe.softcap)


def _normed(scene: Scene, il: int, name: str, x: Node, kind: str) -> Node:
    weight = scene.find(il, name)
    return x if weight is None else norm(x, weight, scene.bias(il, name), kind)


def rotates(scene: Scene, recipe: Recipe, il: int) -> bool:
    """Whether a block uses rotary positions."""
    if recipe.rope == "sliding":
        return scene.model.swa(il)
    if recipe.rope == "no_fourth":
        return (il + 1) % 4 != 0
    return recipe.rope == "all"


def mixed(scene: Scene, recipe: Recipe, il: int, x: Node) -> Node:
    """Feed-forward layer or experts, whichever the block has."""
    if not scene.has(il, "ffn_gate_inp"):
        return feed_forward(scene, il, x, recipe.activation)
    routed = experts(scene, il, x, routing_of(scene, recipe.routing))
    if not scene.has(il, "ffn_up_shexp"):
        return routed
    if recipe.shared == "silu_gated":
        score = mul_mat(scene.weight(il, "ffn_gate_inp_shexp"), x)
        factor = like("DIV", unary(score, "silu"), score)
        return like("ADD", routed, like("MUL", feed_forward(scene, il, x, recipe.activation, "_shexp"), factor))
    shared = feed_forward(scene, il, x, recipe.activation, "_shexp")
    if recipe.shared == "gated":
        score = unary(mul_mat(scene.weight(il, "ffn_gate_inp_shexp"), x), "sigmoid")
        shared = like("MUL", shared, score)
    return like("ADD", routed, shared)


def finish(scene: Scene, recipe: Recipe, x: Node) -> None:
    """Final norm and logits."""
    model = scene.model
    x = norm(x, scene.top("output_norm.weight"), scene.top("output_norm.bias"), recipe.norm)
    if model.output_name is None:
        scene.graph.expand(x)
        return
    x.output = scene.rules.modern
    if model.real("logit_scale") and model.arch == "minicpm":
        x = like("SCALE", x)
    head = scene.top(model.output_name)
    if head is None:
        msg = "the model file has no `output.weight`"
        raise ValueError(msg)
    x = mul_mat(head, x)
    bias = scene.top("output.bias")
    if bias is not None:
        x = like("ADD", x, bias)
    if recipe.scale_logits if recipe.scale_logits is not None else bool(model.real("logit_scale")):
        x = like("SCALE", x)
    if recipe.cap_logits if recipe.cap_logits is not None else bool(model.real("final_logit_softcapping")):
        x = like("SCALE", unary(like("SCALE", x), "tanh"))
    x.output = True
    scene.graph.expand(x)


__all__ = ["Recipe", "block", "build", "concat", "finish", "glu", "linear", "mixed", "rows", "view"]
