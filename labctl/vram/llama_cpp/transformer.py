"""Transformers whose blocks follow one plan: norm, attention, residual, norm, feed-forward or experts, residual.

What differs between architectures is a ``Recipe``; what a model file shows by having a tensor (biases, gates, norms
after attention, shared experts) is read from the file.

Source: llama.cpp b11549, the ``graph`` constructors in ``src/models/*.cpp``.
"""

from __future__ import annotations

from dataclasses import field, replace

from labctl.values import dataclass
from labctl.vram.llama_cpp.blocks import (
    Aids,
    attention,
    feed_forward,
    linear,
    norm,
    norm_of,
    queries_keys_values,
    rotate,
    uncached_attention,
)
from labctl.vram.llama_cpp.experts import Routing, experts, routing_of
from labctl.vram.llama_cpp.graph import Node, get_rows, like, mul_mat, reshape, unary
from labctl.vram.llama_cpp.model import UNCACHED
from labctl.vram.llama_cpp.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the blocks of an architecture differ from the plainest transformer (Llama's).

    Attributes:
        norm: ``RMS_NORM`` or ``NORM``.
        activation: of the feed-forward layer.
        residual: ``serial``, or how a parallel block adds up feed-forward (f), attention (a) and input (i): ``fia``,
            ``afi``, ``fai``; ``own``: like ``fia`` with a norm of its own for the feed-forward layer.
        norm_in: name of the norm before attention; empty: none.
        norm_ffn: name of the norm before the feed-forward layer; empty: none.
        reuse_norm: without that norm in the file, the feed-forward layer reads what attention read.
        norm_after: names of the norms behind attention and behind the feed-forward layer.
        norm_q: when Q and K are normed: ``head`` before rotation, ``full`` over all heads, ``late`` after rotation,
            ``bare``: after rotation and without weights, in blocks that rotate.
        norm_q_kind: kind of that norm; empty: as ``norm``.
        rope: ``all``, ``none``, ``sliding`` (only sliding-window layers),
            ``sliding_or_all`` (likewise, if there are any), ``not_fourth`` (every fourth layer without),
            ``not_first`` (likewise, counted from the first), ``small`` (models of 32 blocks).
        factors: rotation uses frequency factors when the file has them.
        scale_q: Q is multiplied by a constant after rotation.
        temperature: Q is multiplied by an input in blocks without rotation.
        softcap: attention scores are capped when flash attention is off.
        cap_logits: logits are capped; None: when the file gives a cap.
        scale_logits: logits are multiplied by a constant; None: when the file gives one.
        gated_attention: attention's output is multiplied by a sigmoid of its input before the projection.
        routing: how experts are chosen.
        early_scores: experts are scored on the block's input.
        shared: how the shared expert is added: ``plain``, ``first`` (computed before the routed ones), ``gated`` (by a
            sigmoid), ``silu_gated``, ``halved`` (the sum is multiplied by a constant),
            ``dense`` (likewise, with an ordinary feed-forward layer).
    """

    norm: str = "RMS_NORM"
    activation: str = "silu"
    residual: str = "serial"
    norm_in: str = "attn_norm"
    norm_ffn: str = "ffn_norm"
    reuse_norm: bool = False
    norm_after: tuple[str, str] = ("post_attention_norm", "post_ffw_norm")
    norm_q: str = "head"
    norm_q_kind: str = ""
    rope: str = "all"
    factors: bool = False
    scale_q: bool = False
    temperature: bool = False
    softcap: bool = False
    cap_logits: bool | None = None
    scale_logits: bool | None = None
    gated_attention: bool = False
    routing: Routing = field(default_factory=Routing)
    early_scores: bool = False
    shared: str = "plain"


def build(scene: Scene, recipe: Recipe) -> None:
    """Build the whole graph."""
    x = start(scene)
    for il in scene.sequence:
        x = block(scene, recipe, il, x)
    finish(scene, recipe, x)


def start(scene: Scene) -> Node:
    """The embedding, with learned positions and a norm where the file has them."""
    x = scene.embedded()
    table = scene.top("position_embd.weight", scene.placement.gpus)
    if table is not None:
        x = like("ADD", x, get_rows(table, scene.positions))
    first = scene.placement.layer(0)
    weight = scene.top("token_embd_norm.weight", first)
    if weight is not None:
        x = norm(x, weight, scene.top("token_embd_norm.bias", first), "NORM")
    return x


def block(scene: Scene, recipe: Recipe, il: int, x: Node) -> Node:
    """One block: [width, tokens] → [width, tokens], the outputs' rows only after the last one."""
    residual = x
    scores = mul_mat(scene.weight(il, "ffn_gate_inp"), x) if recipe.early_scores else None
    normed = norm_of(scene, il, recipe.norm_in, x, recipe.norm) if recipe.norm_in else x
    second = scene.has(il, "attn_norm_2")
    y = self_attention(scene, recipe, il, norm_of(scene, il, "attn_norm_2", x, recipe.norm) if second else normed)
    if il == scene.last:
        y, residual, normed = rows(scene, y), rows(scene, residual), rows(scene, normed)
        scores = None if scores is None else rows(scene, scores)
    y = scaled_residual(scene, after(scene, il, recipe.norm_after[0], y, recipe))
    if recipe.residual == "by_file":
        own = scene.model.flag("use_parallel_residual", default=True)
        recipe = replace(recipe, residual="own" if own else "serial")
    if recipe.residual != "serial":
        return _parallel(scene, recipe, il, y, residual, normed)
    middle = like("ADD", y, residual)
    z = middle
    if recipe.norm_ffn:
        reused = recipe.reuse_norm and not scene.has(il, recipe.norm_ffn)
        z = normed if reused else norm_of(scene, il, recipe.norm_ffn, middle, recipe.norm)
    z = mixed(scene, recipe, il, z, scores)
    z = scaled_residual(scene, after(scene, il, recipe.norm_after[1], z, recipe))
    return like("ADD", z, middle)


def _parallel(scene: Scene, recipe: Recipe, il: int, attention_out: Node, residual: Node, normed: Node) -> Node:
    own = recipe.residual == "own"
    z = norm_of(scene, il, recipe.norm_ffn, residual, recipe.norm) if own else normed
    parts = {"f": mixed(scene, recipe, il, z), "a": attention_out, "i": residual}
    order = "fia" if own else recipe.residual
    return like("ADD", like("ADD", parts[order[0]], parts[order[1]]), parts[order[2]])


def rows(scene: Scene, x: Node) -> Node:
    """Only the rows of tokens whose logits are wanted."""
    return get_rows(x, scene.output_rows)


def after(scene: Scene, il: int, name: str, x: Node, recipe: Recipe) -> Node:
    """A norm behind attention or feed-forward, where the file has one that is not used elsewhere."""
    if name == recipe.norm_ffn or not name or not scene.has(il, name):
        return x
    return norm_of(scene, il, name, x, recipe.norm)


def scaled_residual(scene: Scene, x: Node) -> Node:
    """Granite's and MiniCPM's factor on what is added to the residual stream."""
    if scene.model.real("residual_scale") or scene.model.arch in {"minicpm", "minicpm3"}:
        return like("SCALE", x)
    return x


def self_attention(scene: Scene, recipe: Recipe, il: int, x: Node) -> Node:
    """Projections, norms, rotation, attention, output projection."""
    q, k, v = _prepared(scene, recipe, il, x)
    if recipe.scale_q:
        q = like("SCALE", q)
    if scene.model.arch in UNCACHED:
        return uncached_attention(scene, il, q, k, v)
    aids = Aids(sinks=scene.find(il, "attn_sinks"), softcap=recipe.softcap)
    y = attention(scene, il, q, k, v, aids, project=not recipe.gated_attention)
    if not recipe.gated_attention:
        return y
    y = like("MUL", y, unary(mul_mat(scene.weight(il, "attn_gate"), x), "sigmoid"))
    return linear(scene, il, "attn_output", y)


def _prepared(scene: Scene, recipe: Recipe, il: int, x: Node) -> tuple[Node, Node, Node]:
    """Q, K and V, normed and rotated."""
    full = recipe.norm_q == "full"
    q, k, v = queries_keys_values(scene, il, x, heads=not full)
    kind = recipe.norm_q_kind or recipe.norm
    if recipe.norm_q in {"head", "full"}:
        q, k = _normed(scene, il, "attn_q_norm", q, kind), _normed(scene, il, "attn_k_norm", k, kind)
    if full:
        model, n = scene.model, x.ne[1]
        q = reshape(q, model.head_k(il), model.heads(il), n)
        k = reshape(k, model.head_k(il), model.kv_heads(il), n)
        v = reshape(v, model.head_v(il), model.kv_heads(il), n)
    q, k = _rotated(scene, recipe, il, q, k)
    if recipe.norm_q == "late":
        q, k = _normed(scene, il, "attn_q_norm", q, kind), _normed(scene, il, "attn_k_norm", k, kind)
    return q, k, v


def _rotated(scene: Scene, recipe: Recipe, il: int, q: Node, k: Node) -> tuple[Node, Node]:
    if not rotates(scene, recipe, il):
        if recipe.temperature:
            q = like("MUL", q, scene.given("attention scale", "F32", 1, 1, scene.tokens))
        return q, k
    q, k = (rotate(scene, part, il, factors=recipe.factors) for part in (q, k))
    if recipe.norm_q == "bare" and scene.model.number("expert_count", 0) != _NOT_NORMED:
        q, k = norm(q, None), norm(k, None)
    return q, k


_NOT_NORMED = 128
"""Llama 4 with this many experts has no norm of Q and K (``use_kq_norm``)."""


def _normed(scene: Scene, il: int, name: str, x: Node, kind: str) -> Node:
    weight = scene.find(il, name)
    return x if weight is None else norm(x, weight, scene.bias(il, name), kind)


def rotates(scene: Scene, recipe: Recipe, il: int) -> bool:
    """Whether a block uses rotary positions."""
    if recipe.rope == "sliding":
        dense = scene.model.number("leading_dense_block_count", 0) if scene.model.arch == "cohere2moe" else 0
        return scene.model.swa(il) or il < dense
    if recipe.rope == "sliding_or_all":
        return scene.model.swa(il) or not scene.model.window
    if recipe.rope == "small":
        return scene.model.layers == 32
    if recipe.rope == "not_fourth":
        return (il + 1) % 4 != 0
    if recipe.rope == "not_first":
        return il % 4 != 0
    return recipe.rope == "all"


def mixed(scene: Scene, recipe: Recipe, il: int, x: Node, scores: Node | None = None) -> Node:
    """Feed-forward layer or experts, whichever the block has."""
    if not scene.has(il, "ffn_gate_inp"):
        return feed_forward(scene, il, x, recipe.activation)
    routed = experts(scene, il, x, routing_of(scene, recipe.routing), scores)
    if recipe.shared == "dense" and scene.has(il, "ffn_up"):
        return like("SCALE", like("ADD", feed_forward(scene, il, x, recipe.activation), routed))
    if not scene.has(il, "ffn_up_shexp"):
        return routed
    total = like("ADD", routed, _shared(scene, recipe, il, x))
    return like("SCALE", total) if recipe.shared == "halved" else total


def _shared(scene: Scene, recipe: Recipe, il: int, x: Node) -> Node:
    """The expert that every token visits."""
    shared = feed_forward(scene, il, x, recipe.activation, "_shexp")
    if recipe.shared not in {"gated", "silu_gated"}:
        return shared
    score = mul_mat(scene.weight(il, "ffn_gate_inp_shexp"), x)
    if recipe.shared == "silu_gated":
        return like("MUL", shared, like("DIV", unary(score, "silu"), score))
    return like("MUL", shared, unary(score, "sigmoid"))


def finish(scene: Scene, recipe: Recipe, x: Node) -> None:
    """Final norm and logits."""
    model = scene.model
    weight = scene.top("output_norm.weight") or scene.top("token_embd_norm.weight")
    x = norm(x, weight, scene.top("output_norm.bias"), recipe.norm)
    if model.output_name is None:
        scene.graph.expand(x)
        return
    x.output = scene.rules.modern
    if model.arch == "minicpm3":
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
