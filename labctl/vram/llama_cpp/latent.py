"""Latent attention: DeepSeek 2 and 3 and their relatives.

Source: llama.cpp b11549, ``src/models/deepseek2.cpp`` and ``build_attn`` for K-only caches in ``src/llama-graph.cpp``.
"""

from __future__ import annotations

from labctl.vram.llama_cpp.blocks import Aids, attend, attention, cached_keys, linear, norm_of, rotate, store
from labctl.vram.llama_cpp.experts import Routing
from labctl.vram.llama_cpp.graph import Node, concat, like, mul_mat, permute, repeat, reshape, view
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, finish, mixed, rows, scaled_residual

RECIPE = Recipe(routing=Routing(normalised=False))


def build(scene: Scene) -> None:
    """Build the whole graph."""
    x = scene.embedded()
    for il in scene.sequence:
        residual = x
        x = latent_attention(scene, il, norm_of(scene, il, "attn_norm", x))
        if il == scene.last:
            x, residual = rows(scene, x), rows(scene, residual)
        residual = like("ADD", scaled_residual(scene, x), residual)
        x = mixed(scene, RECIPE, il, norm_of(scene, il, "ffn_norm", residual))
        x = like("ADD", scaled_residual(scene, x), residual)
    finish(scene, RECIPE, x)


def latent_attention(scene: Scene, il: int, x: Node) -> Node:
    """Attention through a compressed K, absorbed into Q where the file has the split projections."""
    model, tokens = scene.model, x.ne[1]
    heads, rope = model.heads(il), model.number("rope.dimension_count")
    size = model.number("attention.key_length_mla", 0) or model.head_k(il)
    q = _queries(scene, il, x)
    q = reshape(q, size, heads, tokens)
    both = mul_mat(scene.weight(il, "attn_kv_a_mqa"), x)
    rank = both.ne[0] - rope
    latent = view(both, (rank, tokens), (both.nb[1],))
    k_rope = rotate(scene, view(both, (rope, 1, tokens), (both.nb[1], both.nb[1])), il)
    latent = norm_of(scene, il, "attn_kv_a_norm", latent)
    if model.mla:
        return _absorbed(scene, il, q, latent, k_rope)
    return _expanded(scene, il, q, latent, k_rope)


def _queries(scene: Scene, il: int, x: Node) -> Node:
    if scene.has(il, "attn_q_a"):
        x = norm_of(scene, il, "attn_q_a_norm", mul_mat(scene.weight(il, "attn_q_a"), x))
        return mul_mat(scene.weight(il, "attn_q_b"), x)
    return mul_mat(scene.weight(il, "attn_q"), x)


def _absorbed(scene: Scene, il: int, q: Node, latent: Node, k_rope: Node) -> Node:
    """One shared latent head: K = [latent, rotated part], V = latent."""
    size, heads, tokens = q.ne[:3]
    rope, rank = k_rope.ne[0], latent.ne[0]
    plain = view(q, (size - rope, heads, tokens), q.nb[1:3])
    turned = rotate(scene, view(q, (rope, heads, tokens), q.nb[1:3]), il)
    absorbed = permute(mul_mat(scene.weight(il, "attn_k_b"), permute(plain, 0, 2, 1, 3)), 0, 2, 1, 3)
    query = concat(absorbed, turned, 0)
    value = reshape(latent, rank, 1, tokens)
    key = concat(value, k_rope, 0)
    if scene.model.real("attention.temperature_scale"):
        query = like("MUL", query, scene.given("attention scale", "F32", 1, 1, tokens))
    for part in (query, value, key):
        scene.graph.expand(part)
    store(scene, il, key, None, sliding=False)
    keys = cached_keys(scene, il)
    values = view(keys, (rank, *keys.ne[1:4]), keys.nb[1:4])
    aids = Aids(decompress=scene.weight(il, "attn_v_b"))
    y = attend(scene, query, keys, values, scene.mask(sliding=False), aids)
    return linear(scene, il, "attn_output", y)


def _expanded(scene: Scene, il: int, q: Node, latent: Node, k_rope: Node) -> Node:
    """Files without split projections: ordinary attention over expanded K and V."""
    size, heads, tokens = q.ne[:3]
    rope = k_rope.ne[0]
    both = mul_mat(scene.weight(il, "attn_kv_b"), latent)
    value_size = both.ne[0] // heads - (size - rope)
    step = 4 * (size - rope + value_size)
    plain = view(both, (size - rope, heads, tokens), (step, step * heads))
    value = like("CONT", view(both, (value_size, heads, tokens), (step, step * heads)))
    query = rotate(scene, q, il)
    key = concat(plain, repeat(k_rope, rope, heads, tokens), 0)
    return attention(scene, il, query, key, value)
