"""Attention and caches as builds of early 2025 make them.

Source: llama.cpp of February and March 2025 (vendored by llama-cpp-python 0.3.8), ``src/llama.cpp``
(``llm_build_kv_store``, ``llm_build_kqv``, ``build_inp_KQ_mask``, ``build_bert``).
"""

from __future__ import annotations

from labctl.vram.llama_cpp.graph import (
    Node,
    cast,
    cont,
    copy_into,
    flash_attention,
    like,
    mul_mat,
    permute,
    reshape,
    transpose,
    unary,
    view,
)
from labctl.vram.llama_cpp.quants import block, pad, row_bytes
from labctl.vram.llama_cpp.scene import Scene

MASK_PADDING = 64
"""Rows of a mask are padded to this many tokens (``GGML_KQ_MASK_PAD``)."""


def attention(scene: Scene, il: int, q: Node, k: Node, v: Node, *, softcap: bool = False) -> Node:
    """Attention through the cache, before the output projection: [heads · head size, tokens]."""
    for part in (q, k, v):
        scene.graph.expand(part)
    _store(scene, il, k, v)
    x = _flash(scene, il, q) if scene.flash else _plain(scene, il, q, softcap=softcap)
    scene.graph.expand(x)
    return x


def mask(scene: Scene, *, sliding: bool, cells: int) -> Node:
    """Attention mask in f32, converted on the device when flash attention is on."""
    rows = pad(scene.tokens, MASK_PADDING)
    given = scene.given(f"mask {sliding}", "F32", cells, rows)
    return scene.shared(f"mask f16 {sliding}", lambda: cast(given, "F16")) if scene.flash else given


def _store(scene: Scene, il: int, k: Node, v: Node) -> None:
    model, graph, tokens = scene.model, scene.graph, scene.tokens
    keys, values = scene.cached("k", il), scene.cached("v", il)
    wide_k, wide_v = model.head_k(il) * model.kv_heads(il), model.head_v(il) * model.kv_heads(il)
    graph.expand(copy_into(k, view(keys, (tokens * wide_k,))))
    if scene.flash:
        graph.expand(copy_into(v, view(values, (tokens * wide_v,))))
        return
    column = row_bytes(values.type, scene.cache.cells)
    flat = reshape(v, wide_v, tokens) if v.contiguous() else cont(v, wide_v, tokens)
    graph.expand(copy_into(transpose(flat), view(values, (tokens, wide_v), (column,))))


def _keys(scene: Scene, il: int) -> Node:
    model, cache = scene.model, scene.cached("k", il)
    size, heads = model.head_k(il), model.kv_heads(il)
    one = row_bytes(cache.type, size)
    return view(cache, (size, scene.cache.cells, heads), (one * heads, one))


def _flash(scene: Scene, il: int, q: Node) -> Node:
    model, cache = scene.model, scene.cached("v", il)
    size, heads, cells = model.head_v(il), model.kv_heads(il), scene.cache.cells
    one = row_bytes(cache.type, size)
    values = view(cache, (size, cells, heads), (one * heads, one))
    limits = mask(scene, sliding=model.swa(il), cells=cells)
    x = flash_attention(permute(q, 0, 2, 1, 3), _keys(scene, il), values, limits, None)
    return reshape(x, size * model.heads(il), scene.tokens)


def _plain(scene: Scene, il: int, q: Node, *, softcap: bool) -> Node:
    model, cache = scene.model, scene.cached("v", il)
    size, heads, cells = model.head_v(il), model.kv_heads(il), scene.cache.cells
    scores = mul_mat(_keys(scene, il), permute(q, 0, 2, 1, 3))
    if softcap or model.arch == "grok":
        scores = like("SCALE", unary(like("SCALE", scores), "tanh"))
    scores = like("SOFT_MAX", scores, mask(scene, sliding=model.swa(il), cells=cells))
    element = block(cache.type)[1]
    values = view(cache, (cells, size, heads), (element * cells, element * cells * size))
    x = cont(permute(mul_mat(values, scores), 0, 2, 1, 3), size * model.heads(il), scene.tokens)
    if not scene.settings.kv_offload:
        x.backend = scene.placement.gpus
    return x


def uncached_attention(scene: Scene, il: int, q: Node, k: Node, v: Node) -> Node:
    """Attention of encoders, which never used flash attention."""
    model, tokens = scene.model, scene.tokens
    size, heads = model.head_v(il), model.kv_heads(il)
    keys = like("CONT", permute(k, 0, 2, 1, 3))
    scores = mul_mat(keys, permute(q, 0, 2, 1, 3))
    scores = like("SOFT_MAX", scores, mask(scene, sliding=False, cells=tokens))
    values = like("CONT", transpose(reshape(v, size * heads, tokens)))
    x = mul_mat(reshape(values, tokens, size, heads), scores)
    x = cont(permute(x, 0, 2, 1, 3), size * heads, tokens)
    scene.graph.expand(x)
    return x
