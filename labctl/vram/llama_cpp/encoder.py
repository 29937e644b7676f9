"""BERT and its relatives: no cache, a norm after each sublayer, embeddings as output.

Source: llama.cpp b11549, ``src/models/bert.cpp``, ``src/llama-graph.cpp`` (``build_pooling``).
"""

from __future__ import annotations

from labctl.vram.llama_cpp.blocks import (
    feed_forward,
    norm,
    norm_of,
    queries_keys_values,
    rotate,
    uncached_attention,
)
from labctl.vram.llama_cpp.experts import Routing, experts
from labctl.vram.llama_cpp.graph import Node, get_rows, like, mul_mat, reshape, transpose, unary, view
from labctl.vram.llama_cpp.model import ENCODERS
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import rows

_ROTARY = frozenset({"nomic-bert", "nomic-bert-moe", "jina-bert-v3"})
_PLAIN_FFN = frozenset({"bert", "nomic-bert-moe", "jina-bert-v3"})
_EXPERTS = Routing(normalised=False, activation="gelu")


def build(scene: Scene) -> None:
    """Build the whole graph."""
    model, host = scene.model, scene.placement.gpus
    x = scene.embedded()
    types = scene.top("token_types.weight", host)
    if types is not None:
        x = like("ADD", x, view(types, (model.embd,)))
    table = scene.top("position_embd.weight", host)
    if model.arch == "bert" and table is not None:
        x = like("ADD", get_rows(table, scene.positions), x)
    first = scene.placement.layer(0)
    x = norm(x, scene.top("token_embd_norm.weight", first), scene.top("token_embd_norm.bias", first), "NORM")
    for il in scene.sequence:
        x = _block(scene, il, x)
    scene.graph.expand(x)
    pool(scene, x)


def _block(scene: Scene, il: int, x: Node) -> Node:
    q, k, v = queries_keys_values(scene, il, x)
    q, k = _normed(scene, il, "attn_q_norm", q), _normed(scene, il, "attn_k_norm", k)
    if scene.model.arch in _ROTARY:
        q, k = rotate(scene, q, il), rotate(scene, k, il)
    y = uncached_attention(scene, il, q, k, v)
    if il == scene.last and (scene.rules.modern or not scene.model.number("pooling_type", 0)):
        y, x = rows(scene, y), rows(scene, x)
    y = norm_of(scene, il, "attn_output_norm", like("ADD", y, x), "NORM")
    if scene.has(il, "attn_norm_2"):
        y = norm_of(scene, il, "attn_norm_2", like("ADD", y, x), "NORM")
    z = like("ADD", _feed_forward(scene, il, y), y)
    return norm_of(scene, il, "layer_output_norm", z, "NORM")


def _normed(scene: Scene, il: int, name: str, x: Node) -> Node:
    if not scene.has(il, name):
        return x
    flat = norm_of(scene, il, name, reshape(x, x.ne[0] * x.ne[1], x.ne[2]), "NORM")
    return reshape(flat, *x.ne)


def _feed_forward(scene: Scene, il: int, x: Node) -> Node:
    arch = scene.model.arch
    if scene.has(il, "ffn_gate_inp"):
        return experts(scene, il, x, _EXPERTS)
    if arch in _PLAIN_FFN:
        return feed_forward(scene, il, x, "gelu", gate=False)
    if arch == "jina-bert-v2":
        up = scene.weight(il, "ffn_up")
        halves = not scene.has(il, "ffn_gate") and up.ne[1] != scene.model.number("feed_forward_length")
        return feed_forward(scene, il, x, "geglu" if halves else "gelu")
    return feed_forward(scene, il, x, "silu")


def pool(scene: Scene, x: Node) -> None:
    """One vector per sequence, and the classification head of rerankers."""
    kind = scene.model.number("pooling_type", 0)
    if not scene.settings.embeddings and scene.model.arch not in ENCODERS:
        return
    slots = scene.slots if scene.rules.modern else scene.tokens
    if kind == 1:
        x = mul_mat(like("CONT", transpose(x)), scene.given("mean", "F32", scene.tokens, slots))
    elif kind in {2, 3, 4}:
        x = get_rows(x, scene.given("cls", "I32", slots))
    if kind == 4:
        x = _classified(scene, x)
    scene.graph.expand(x)


def _classified(scene: Scene, x: Node) -> Node:
    dense = scene.top("cls.weight")
    if dense is not None:
        bias = scene.top("cls.bias")
        x = mul_mat(dense, x)
        x = unary(x if bias is None else like("ADD", x, bias), "tanh")
    out = scene.top("cls.output.weight")
    if out is not None:
        bias = scene.top("cls.output.bias")
        x = mul_mat(out, x)
        x = x if bias is None else like("ADD", x, bias)
    return like("SOFT_MAX", x) if scene.model.arch in {"qwen3", "qwen3vl"} else x
