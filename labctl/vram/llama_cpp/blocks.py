"""The parts that most architectures share: norms, projections, attention, feed-forward and experts.

Source: llama.cpp b11549, ``src/llama-graph.cpp`` (``build_norm``, ``build_qkv``, ``build_attn*``, ``build_ffn``,
``build_moe_ffn``).
"""

from __future__ import annotations

from labctl.values import dataclass
from labctl.vram.llama_cpp import early
from labctl.vram.llama_cpp.graph import (
    Node,
    cast,
    cont,
    flash_attention,
    glu,
    like,
    mul_mat,
    permute,
    reshape,
    set_rows,
    transpose,
    unary,
    view,
)
from labctl.vram.llama_cpp.scene import Scene


def norm(x: Node, weight: Node | None, bias: Node | None = None, kind: str = "RMS_NORM") -> Node:
    """Normalisation of rows, then weight and bias if there are any."""
    x = like(kind, x)
    if weight is not None:
        x = like("MUL", x, weight)
    return x if bias is None else like("ADD", x, bias)


def norm_of(scene: Scene, il: int, name: str, x: Node, kind: str = "RMS_NORM") -> Node:
    """Normalisation with the weight and bias ``name`` of a block."""
    x = like(kind, x)
    if not scene.rules.modern and scene.placement.full:
        x.backend = scene.placement.layer(il)
    weight, bias = scene.find(il, name), scene.bias(il, name)
    x = x if weight is None else like("MUL", x, weight)
    return x if bias is None else like("ADD", x, bias)


def linear(scene: Scene, il: int, name: str, x: Node) -> Node:
    """Product with weight ``name``, with its scale and bias if there are any."""
    x = mul_mat(scene.weight(il, name), x)
    scale, bias = scene.find(il, name, ".scale"), scene.bias(il, name)
    if scale is not None:
        x = like("MUL", x, scale)
    return x if bias is None else like("ADD", x, bias)


def rotate(scene: Scene, x: Node, il: int, *, factors: bool = False) -> Node:
    """Rotary positions."""
    return like("ROPE", x, scene.positions, scene.rope_factors(il) if factors else None)


def queries_keys_values(scene: Scene, il: int, x: Node, *, heads: bool = True) -> tuple[Node, Node, Node]:
    """Q, K and V: [head size, heads, tokens], or [width, tokens] when ``heads`` is False."""
    model, tokens = scene.model, x.ne[1]
    heads_q, heads_kv, size = model.heads(il), model.kv_heads(il), model.head_k(il)
    sizes = [(size, heads_q), (size, heads_kv), (model.head_v(il), heads_kv)]
    if scene.has(il, "attn_qkv"):
        return _fused(scene, il, x, sizes, heads=heads)
    parts = []
    for name, (size, count) in zip(("attn_q", "attn_k", "attn_v"), sizes, strict=True):
        part = linear(scene, il, name, x)
        if heads and model.real("attention.clamp_kqv") > 0:
            part = like("CLAMP", part)
        parts.append(reshape(part, size, count, tokens) if heads else part)
    return parts[0], parts[1], parts[2]


def _fused(scene: Scene, il: int, x: Node, sizes: list[tuple[int, int]], *, heads: bool) -> tuple[Node, Node, Node]:
    qkv = linear(scene, il, "attn_qkv", x)
    if heads and scene.model.real("attention.clamp_kqv") > 0:
        qkv = like("CLAMP", qkv)
    parts = []
    for size, count in sizes:
        if heads and scene.rules.modern:
            parts.append(view(qkv, (size, count, x.ne[1]), (4 * size, qkv.nb[1])))
        else:
            flat = like("CONT", view(qkv, (size * count, x.ne[1]), (qkv.nb[1],)))
            parts.append(reshape(flat, size, count, x.ne[1]) if heads else flat)
    return parts[0], parts[1], parts[2]


def hadamard(x: Node, rotation: Node) -> Node:
    """Rotate every head by a Hadamard matrix."""
    n = rotation.ne[0]
    dims = (n, x.elements // n)
    flat = reshape(x, *dims) if x.contiguous() else cont(x, *dims)
    product = mul_mat(rotation, flat)
    product.variant = "hadamard"
    return reshape(product, *x.ne)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aids:
    """What some architectures add to attention.

    Attributes:
        sinks: attention sinks of each head.
        decompress: projection of latent values to those of each head.
        softcap: scores are capped when flash attention is off.
        cache_of: the block whose cache is read; None: the block's own.
    """

    sinks: Node | None = None
    decompress: Node | None = None
    softcap: bool = False
    cache_of: int | None = None


NO_AIDS = Aids()


def attention(
    scene: Scene, il: int, q: Node, k: Node | None, v: Node | None, aids: Aids = NO_AIDS, *, project: bool = True
) -> Node:
    """Attention through the cache and the output projection.

    Args:
        scene: the graph.
        il: block; K and V are written into its cache.
        q: [head size, heads, tokens].
        k: [head size, KV heads, tokens]; None when the block reads an earlier block's cache.
        v: like ``k``; None likewise.
        aids: what the architecture adds.
        project: False to leave the output projection out.
    """
    if not scene.rules.modern and k is not None and v is not None:
        x = early.attention(scene, il, q, k, v, softcap=aids.softcap)
        return linear(scene, il, "attn_output", x) if project else x
    sliding = scene.model.swa(il)
    turn_k, turn_v = scene.rotations(sliding=sliding)
    if turn_k is not None:
        q = hadamard(q, turn_k)
        k = hadamard(k, turn_k) if k is not None else None
    if turn_v is not None and v is not None:
        v = hadamard(v, turn_v)
    for part in (q, k, v) if scene.model.window else (q, v, k):
        if part is not None:
            scene.graph.expand(part)
    store(scene, il, k, v, sliding=sliding)
    source = il if aids.cache_of is None else aids.cache_of
    keys, values = cached_keys(scene, source), cached_values(scene, source)
    x = attend(scene, q, keys, values, scene.mask(sliding=sliding), aids)
    x = x if turn_v is None else hadamard(x, turn_v)
    return linear(scene, il, "attn_output", x) if project else x


def store(scene: Scene, il: int, k: Node | None, v: Node | None, *, sliding: bool) -> None:
    """Write K and V of the batch into the cache."""
    graph, streams, tag = scene.graph, scene.cache.streams, " swa" if sliding else ""
    if k is not None:
        cache, tokens = scene.cached("k", il), k.ne[2]
        ids = scene.given("k ids" + tag, "I64", tokens)
        rows = view(k, (k.ne[0] * k.ne[1], tokens), (k.nb[2],))
        if streams > 1:
            cache = reshape(cache, cache.ne[0], cache.ne[1] * streams)
        graph.expand(set_rows(cache, rows, ids))
    if v is not None:
        graph.expand(_store_values(scene, scene.cached("v", il), v, tag))


def _store_values(scene: Scene, cache: Node, v: Node, tag: str) -> Node:
    width, tokens, streams = v.ne[0] * v.ne[1], v.ne[2], scene.cache.streams
    if scene.flash:
        ids = scene.given("v ids" + tag, "I64", tokens)
        if streams > 1:
            rows = view(v, (width, tokens), (v.nb[2],))
            return set_rows(reshape(cache, cache.ne[0], cache.ne[1] * streams), rows, ids)
        return set_rows(cache, view(v, (width, tokens), (v.nb[2],)), ids)
    ids = scene.given("v ids" + tag, "I64", tokens * scene.cache.widest_v)
    rows = reshape(v, width, tokens) if v.nb[2] == 4 * width else cont(v, width, tokens)
    if width < cache.ne[0]:
        wide = (cache.ne[0], *rows.ne[1:])
        rows = Node("PAD", "F32", wide, [rows])
    rows = reshape(rows, 1, rows.elements)
    return set_rows(reshape(cache, 1, cache.elements), rows, ids)


def cached_keys(scene: Scene, il: int) -> Node:
    """K of block ``il`` as cached: [head size, KV heads, cells, streams]."""
    cache = scene.cached("k", il)
    size, heads = scene.model.head_k(il), scene.model.kv_heads(il)
    cells, streams = cache.ne[1], cache.ne[2]
    return view(cache, (size, heads, cells, streams), (cache.nb[1] // heads, cache.nb[1], cache.nb[2]))


def cached_values(scene: Scene, il: int) -> Node:
    """V of block ``il`` as cached; transposed unless flash attention is on."""
    cache = scene.cached("v", il)
    size, heads = scene.model.head_v(il), scene.model.kv_heads(il)
    cells, streams = cache.ne[1], cache.ne[2]
    if scene.flash:
        one = cache.nb[1] * size // max(cache.ne[0], 1)
        return view(cache, (size, heads, cells, streams), (one, cache.nb[1], cache.nb[2]))
    column = cache.nb[0] * cells
    return view(cache, (cells, heads, size, streams), (column * size, column, cache.nb[2]))


def attend(scene: Scene, q: Node, k: Node, v: Node, mask: Node, aids: Aids = NO_AIDS) -> Node:
    """Scores, softmax and weighted values: [heads · head size, tokens] (``build_attn_mha``)."""
    transposed = v.nb[1] > v.nb[2]
    streams = k.ne[3]
    per_stream = q.ne[2] // streams
    q = view(q, (q.ne[0], q.ne[1], per_stream, streams), (q.nb[1], q.nb[2], q.nb[2] * per_stream))
    q, k, v = (permute(x, 0, 2, 1, 3) for x in (q, k, v))
    if scene.flash:
        x = _flash(q, k, transpose(v) if transposed else v, mask, aids)
        if scene.model.real("attention.max_alibi_bias") > 0:
            x.variant = "alibi"
        x = reshape(x, x.ne[0] * x.ne[1], x.ne[2] * x.ne[3])
    else:
        x = _plain(scene, q, k, v if transposed else like("CONT", transpose(v)), mask, aids)
    scene.graph.expand(x)
    return x


def _plain(scene: Scene, q: Node, k: Node, v: Node, mask: Node, aids: Aids) -> Node:
    scores = mul_mat(k, q)
    for capped in (scene.model.arch == "grok", aids.softcap):
        if capped:
            scores = like("SCALE", unary(like("SCALE", scores), "tanh"))
    x = mul_mat(v, like("SOFT_MAX", scores, mask, aids.sinks))
    if aids.decompress is not None:
        x = mul_mat(aids.decompress, x)
    x = permute(x, 0, 2, 1, 3)
    x = cont(x, x.ne[0] * x.ne[1], x.ne[2] * x.ne[3])
    if not scene.settings.kv_offload:
        x.backend = scene.placement.gpus
    return x


def _flash(q: Node, k: Node, v: Node, mask: Node, aids: Aids) -> Node:
    k = cast(k, "F16") if k.type == "F32" else k
    v = cast(v, "F16") if v.type == "F32" else v
    x = flash_attention(q, k, v, mask, aids.sinks)
    if aids.decompress is None:
        return x
    x = mul_mat(aids.decompress, permute(x, 0, 2, 1, 3))
    return like("CONT", permute(x, 0, 2, 1, 3))


def uncached_attention(scene: Scene, il: int, q: Node, k: Node, v: Node, *, project: bool = True) -> Node:
    """Attention among the tokens of the batch alone (encoders)."""
    if not scene.rules.modern:
        x = early.uncached_attention(scene, il, q, k, v)
        return linear(scene, il, "attn_output", x) if project else x
    for part in (q, k, v):
        scene.graph.expand(part)
    x = attend(scene, q, k, v, scene.square_mask(sliding=scene.model.swa(il)))
    return linear(scene, il, "attn_output", x) if project else x


def feed_forward(scene: Scene, il: int, x: Node, activation: str, suffix: str = "", *, gate: bool = True) -> Node:
    """Feed-forward layer; gated when the block has a gate, or when the up projection holds both halves.

    Args:
        scene: the graph.
        il: block.
        x: [width, tokens].
        activation: ``silu``, ``gelu``, ``relu``, ``relu_sqr``; ``swiglu``/``geglu`` for one tensor with both halves.
        suffix: ``_shexp`` for shared experts.
        gate: whether a gate is used where there is one.
    """
    up = linear(scene, il, "ffn_up" + suffix, x)
    if gate and scene.has(il, "ffn_gate" + suffix):
        opened = linear(scene, il, "ffn_gate" + suffix, x)
        if scene.rules.modern:
            x = glu(_GATED.get(activation, activation), opened, up)
        else:
            x = like("MUL", unary(opened, activation), up)
    elif activation in {"swiglu", "geglu", "reglu", "geglu_erf"}:
        x = glu(activation, up) if scene.rules.modern else _halves(up)
    elif activation == "relu_sqr":
        x = like("SQR", unary(up, "relu"))
    else:
        x = unary(up, activation)
        divisor = scene.find(il, "ffn_act", ".scales")
        x = x if divisor is None else like("DIV", x, divisor)
    return linear(scene, il, "ffn_down" + suffix, x)


def _halves(both: Node) -> Node:
    """Early builds copy both halves out before the activation."""
    half = (both.ne[0] // 2, both.ne[1])
    gate, up = (like("CONT", view(both, half, (both.nb[1],))) for _ in range(2))
    return like("MUL", unary(gate, "silu"), up)


_GATED = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu"}
"""Activation → name of its gated form."""
