"""Gemma 3n and Gemma 4: inputs per layer, shared caches, and what else they add to a transformer.

Source: llama.cpp b11549, ``src/models/gemma3n.cpp``, ``src/models/gemma4.cpp``.
"""

from __future__ import annotations

from labctl.vram.llama_cpp.blocks import Aids, attention, feed_forward, linear, norm, norm_of, rotate
from labctl.vram.llama_cpp.experts import Routing, experts
from labctl.vram.llama_cpp.graph import (
    Node,
    concat,
    cont,
    get_rows,
    like,
    mul_mat,
    permute,
    repeat,
    reshape,
    sum_rows,
    transpose,
    unary,
    view,
)
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, finish, rows

ALTERNATES = 4
"""Residual streams of Gemma 3n (``n_altup``)."""
SPARSE_LAYERS = 10
"""First layers of Gemma 3n whose gate keeps only its largest values (``n_layer_sparsity``)."""
_EXPERTS = Routing(activation="gelu", from_file=False, scaled=False)


def build4(scene: Scene) -> None:
    """Gemma 4."""
    extra = _rows_per_layer(scene) if "per_layer_token_embd.weight" in scene.model.tensors else None
    if extra is not None:
        scene.graph.expand(extra)
    x = scene.embedded()
    if extra is not None:
        width = scene.model.number("embedding_length_per_layer_input")
        extra = reshape(like("SCALE", extra), width, scene.model.layers, scene.tokens)
        extra = _projected(scene, x, extra)
    for il in scene.sequence:
        x = _block4(scene, il, x, extra)
    finish(scene, Recipe(), x)


def _rows_per_layer(scene: Scene) -> Node:
    table = scene.top("per_layer_token_embd.weight", scene.placement.gpus)
    assert table is not None  # noqa: S101
    return get_rows(table, scene.given("tokens per layer", "I32", scene.tokens))


def _projected(scene: Scene, x: Node, extra: Node) -> Node:
    """The inputs of all layers: [width, tokens, layers]."""
    first = scene.placement.layer(0)
    weight, scale = scene.top("per_layer_model_proj.weight", first), scene.top("per_layer_proj_norm.weight", first)
    assert weight is not None  # noqa: S101
    projected = reshape(like("SCALE", mul_mat(weight, x)), *extra.ne[:3])
    total = like("SCALE", like("ADD", norm(projected, scale), extra))
    return like("CONT", permute(total, 0, 2, 1, 3))


def _slice(x: Node) -> Node:
    return view(x, (x.ne[0], x.ne[1]))


def _shared_from(scene: Scene, il: int) -> int:
    """The block whose cache block ``il`` reads."""
    owners = scene.cache.owning_layers
    return owners - (2 if scene.model.swa(il) else 1)


def _attention(scene: Scene, il: int, x: Node) -> Node:
    """Attention that norms V too; later blocks read an earlier block's cache."""
    model, tokens = scene.model, x.ne[1]
    size, heads, kv = model.head_k(il), model.heads(il), model.kv_heads(il)
    factors = model.arch == "gemma4" and not model.swa(il)
    q = reshape(linear(scene, il, "attn_q", x), size, heads, tokens)
    q = rotate(scene, norm_of(scene, il, "attn_q_norm", q), il, factors=factors)
    if not scene.cache.attends(il):
        return attention(scene, il, q, None, None, Aids(cache_of=_shared_from(scene, il)))
    k = linear(scene, il, "attn_k", x)
    v = linear(scene, il, "attn_v", x) if scene.has(il, "attn_v") else k
    k, v = reshape(k, size, kv, tokens), reshape(v, size, kv, tokens)
    k = rotate(scene, norm_of(scene, il, "attn_k_norm", k), il, factors=factors)
    return attention(scene, il, q, k, norm(v, None))


def _block4(scene: Scene, il: int, x: Node, extra: Node | None) -> Node:
    y = _attention(scene, il, norm_of(scene, il, "attn_norm", x))
    if il == scene.last:
        y, x = rows(scene, y), rows(scene, x)
    x = like("ADD", norm_of(scene, il, "post_attention_norm", y), x)
    y = _mixed4(scene, il, x)
    x = like("ADD", norm_of(scene, il, "post_ffw_norm", y), x)
    if extra is not None:
        part = _slice(extra)
        part = rows(scene, part) if il == scene.last else part
        y = like("MUL", unary(linear(scene, il, "inp_gate", x), "gelu"), part)
        x = like("ADD", x, norm_of(scene, il, "post_norm", linear(scene, il, "proj", y)))
    scale = scene.find(il, "layer_output_scale")
    return x if scale is None else like("MUL", x, scale)


def _mixed4(scene: Scene, il: int, x: Node) -> Node:
    if not scene.has(il, "ffn_gate_inp"):
        return feed_forward(scene, il, norm_of(scene, il, "ffn_norm", x), "gelu")
    dense = feed_forward(scene, il, norm_of(scene, il, "ffn_norm", x), "gelu")
    dense = norm_of(scene, il, "post_ffw_norm_1", dense)
    routed = norm_of(scene, il, "pre_ffw_norm_2", x)
    scores = like("SCALE", like("RMS_NORM", x))
    factor = scene.find(il, "ffn_gate_inp", ".scale")
    scores = scores if factor is None else like("MUL", scores, factor)
    scores = mul_mat(scene.weight(il, "ffn_gate_inp"), scores)
    routed = experts(scene, il, routed, _EXPERTS, scores)
    return like("ADD", dense, norm_of(scene, il, "post_ffw_norm_2", routed))


def build3n(scene: Scene) -> None:
    """Gemma 3n: four residual streams, a low-rank bypass of attention, sparse gates."""
    x = scene.embedded()
    extra = _rows_per_layer(scene)
    width = scene.model.number("embedding_length_per_layer_input")
    extra = like("SCALE", reshape(extra, width, scene.model.layers, scene.tokens))
    scene.graph.expand(extra)
    extra = _projected(scene, x, extra)
    x = _spread(scene, x)
    for il in scene.sequence:
        x = _block3n(scene, il, x, extra)
    finish(scene, Recipe(), rows(scene, _gathered(scene, x)))


def _magnitude(x: Node) -> Node:
    return like("SQRT", sum_rows(like("SQR", x)))


def _rescaled(x: Node, target: Node) -> Node:
    size = _magnitude(x)
    return like("DIV", like("MUL", x, target), size)


def _spread(scene: Scene, x: Node) -> Node:
    """One residual stream to four: [width, tokens, 4]."""
    weight = scene.top("altup_proj.weight")
    assert weight is not None  # noqa: S101
    target = _magnitude(x)
    others = mul_mat(weight, repeat(x, *x.ne[:2], ALTERNATES - 1))
    return concat(x, _rescaled(others, target), 2)


def _rest(x: Node) -> Node:
    return view(x, (*x.ne[:2], ALTERNATES - 1), x.nb[1:3])


def _gathered(scene: Scene, x: Node) -> Node:
    """Four residual streams to one."""
    weight = scene.top("altup_unembd_proj.weight")
    assert weight is not None  # noqa: S101
    target = _magnitude(_slice(x))
    others = _rescaled(mul_mat(weight, _rest(x)), target)
    total = _slice(x)
    for _ in range(ALTERNATES - 1):
        total = like("ADD", total, _slice(others))
    return like("SCALE", total)


def _modalities(scene: Scene, il: int, x: Node) -> Node:
    x = like("SCALE", norm_of(scene, il, "altup_router_norm", x))
    return unary(mul_mat(scene.weight(il, "altup_router"), x), "tanh")


def _predicted(scene: Scene, il: int, x: Node) -> Node:
    coefficients = linear(scene, il, "altup_predict_coef", _modalities(scene, il, _slice(x)))
    coefficients = reshape(coefficients, ALTERNATES, ALTERNATES, x.ne[1])
    mixed = mul_mat(like("CONT", permute(x, 1, 2, 0, 3)), coefficients)
    return like("ADD", like("CONT", permute(mixed, 0, 2, 1, 3)), x)


def _corrected(scene: Scene, il: int, predictions: Node, active: Node) -> Node:
    modalities = _modalities(scene, il, active)
    change = like("SUB", active, _slice(predictions))
    coefficients = like("SCALE", linear(scene, il, "altup_correct_coef", modalities))
    coefficients = cont(transpose(coefficients), 1, active.ne[1], ALTERNATES)
    change = repeat(change, *active.ne[:2], ALTERNATES)
    return like("ADD", like("MUL", change, coefficients), predictions)


def _block3n(scene: Scene, il: int, x: Node, extra: Node) -> Node:
    predictions = _predicted(scene, il, x)
    active = _slice(predictions)
    y = norm_of(scene, il, "attn_norm", active)
    bypass = norm_of(scene, il, "laurel_post_norm", linear(scene, il, "laurel_r", linear(scene, il, "laurel_l", y)))
    bypass = like("ADD", bypass, y)
    y = norm_of(scene, il, "post_attention_norm", _attention(scene, il, y))
    y = like("SCALE", like("ADD", like("ADD", y, active), bypass))
    z = norm_of(scene, il, "post_ffw_norm", _sparse(scene, il, norm_of(scene, il, "ffn_norm", y)))
    corrected = _corrected(scene, il, predictions, like("ADD", z, y))
    first = like("MUL", _slice(corrected), scene.find(il, "altup_correct_scale"))
    first = like("MUL", unary(linear(scene, il, "inp_gate", first), "gelu"), _slice(extra))
    first = norm_of(scene, il, "post_norm", linear(scene, il, "proj", first))
    return concat(_slice(corrected), like("ADD", _rest(corrected), first), 2)


def _sparse(scene: Scene, il: int, x: Node) -> Node:
    up, gate = linear(scene, il, "ffn_up", x), linear(scene, il, "ffn_gate", x)
    if il < SPARSE_LAYERS:
        mean = Node("MEAN", "F32", (1, *gate.ne[1:]), [gate])
        spread = sum_rows(like("SQR", like("SUB", gate, mean)))
        limit = like("ADD", mean, like("SCALE", like("SQRT", like("SCALE", spread))))
        gate = unary(like("SUB", gate, limit), "relu")
    return linear(scene, il, "ffn_down", like("MUL", up, unary(gate, "gelu")))
