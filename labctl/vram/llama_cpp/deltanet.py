"""Gated delta networks: Qwen3-Next and its successors.

Source: llama.cpp b11549, ``src/models/qwen3next.cpp``, ``src/models/qwen35.cpp``, ``src/models/delta-net-base.cpp``.
"""

from __future__ import annotations

from labctl.vram.llama_cpp.blocks import attention, linear, norm, norm_of, rotate
from labctl.vram.llama_cpp.experts import Routing
from labctl.vram.llama_cpp.graph import (
    Node,
    concat,
    cont,
    copy_into,
    like,
    mul_mat,
    repeat,
    reshape,
    transpose,
    unary,
    view,
)
from labctl.vram.llama_cpp.recurrent import states, states_first
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, finish, mixed, rows

RECIPE = Recipe(norm_ffn="post_attention_norm", shared="gated", routing=Routing(from_file=False))


def build(scene: Scene) -> None:
    """Build the whole graph."""
    x = scene.embedded()
    for il in scene.sequence:
        residual = x
        x = norm_of(scene, il, "attn_norm", x)
        scene.graph.expand(x)
        x = delta_layer(scene, il, x) if scene.model.recurrent(il) else gated_attention(scene, il, x)
        if il == scene.last:
            x, residual = rows(scene, x), rows(scene, residual)
        x = residual = like("ADD", x, residual)
        x = mixed(scene, RECIPE, il, norm_of(scene, il, "post_attention_norm", x))
        x = like("ADD", x, residual)
    finish(scene, RECIPE, x)


def gated_attention(scene: Scene, il: int, x: Node) -> Node:
    """Attention whose Q projection also makes a gate for its output."""
    model, tokens = scene.model, x.ne[1]
    size, heads, kv = model.head_k(il), model.heads(il), model.kv_heads(il)
    both = reshape(linear(scene, il, "attn_q", x), 2 * size, heads, tokens)
    q, gate = (view(both, (size, heads, tokens), both.nb[1:4]) for _ in range(2))
    k = reshape(linear(scene, il, "attn_k", x), size, kv, tokens)
    v = reshape(linear(scene, il, "attn_v", x), size, kv, tokens)
    q, k = norm_of(scene, il, "attn_q_norm", q), norm_of(scene, il, "attn_k_norm", k)
    q, k = rotate(scene, q, il), rotate(scene, k, il)
    y = attention(scene, il, q, k, v, project=False)
    y = like("MUL", y, unary(cont(gate, size * heads, tokens), "sigmoid"))
    return linear(scene, il, "attn_output", y)


def delta_layer(scene: Scene, il: int, x: Node) -> Node:
    """A gated delta network over the batch: [width, tokens] → [width, tokens]."""
    model, slots = scene.model, scene.slots
    inner, key, key_heads, heads = (
        model.number(f"ssm.{k}") for k in ("inner_size", "state_size", "group_count", "time_step_rank")
    )
    value, tokens = inner // heads, x.ne[1] // slots
    joined_qkv, z = _projected(scene, il, x, tokens)
    beta, gate = _decays(scene, il, x, tokens)
    channels = inner + 2 * key_heads * key
    saved = states_first(scene, il, channels)
    columns = concat(saved, transpose(joined_qkv), 0)
    last = view(columns, (saved.ne[0], channels, slots), columns.nb[1:3])
    store = scene.cached("r", il)
    scene.graph.expand(copy_into(last, view(store, (store.ne[0], slots), (store.nb[1],))))
    state = reshape(states(scene, il, "s"), value, value, heads, slots)
    kernel = scene.weight(il, "ssm_conv1d")
    conv = Node("SSM_CONV", "F32", (kernel.ne[1], columns.ne[0] - kernel.ne[0] + 1, slots, 1), [columns, kernel])
    conv = unary(conv, "silu")
    step = conv.nb[1]
    q, k = (view(conv, (key, key_heads, tokens, slots), (4 * key, step, step * tokens)) for _ in range(2))
    v = view(conv, (value, heads, tokens, slots), (4 * value, step, step * tokens))
    q, k = (like("SCALE", like("RMS_NORM", part)) for part in (q, k))
    if key_heads != heads and model.arch == "qwen3next":
        q, k = (_repeated(part, heads // key_heads) for part in (q, k))
    y = _recurrence(scene, il, [q, k, v, gate, beta, state])
    z = reshape(z, value, heads, tokens, slots)
    y = like("MUL", norm(y, scene.find(il, "ssm_norm")), unary(z, "silu"))
    y = linear(scene, il, "ssm_out", reshape(y, inner, tokens, slots))
    return reshape(y, y.ne[0], tokens * slots)


def _repeated(x: Node, times: int) -> Node:
    size, heads, tokens, slots = x.ne
    wide = repeat(reshape(x, size, 1, heads, tokens * slots), size, times, heads, tokens * slots)
    return reshape(wide, size, heads * times, tokens, slots)


def _recurrence(scene: Scene, il: int, operands: list[Node]) -> Node:
    v, state = operands[2], operands[5]
    size, heads, tokens, slots = v.ne
    result = Node("GATED_DELTA_NET", "F32", (size * heads, tokens * slots + size * slots, 1, 1), operands)
    out = view(result, (size, heads, tokens, slots), (4 * size, 4 * size * heads, 4 * size * heads * tokens))
    fresh = view(result, state.ne, state.nb[1:4])
    store = scene.cached("s", il)
    scene.graph.expand(copy_into(fresh, view(store, (store.ne[0], slots), (store.nb[1],))))
    return out


def _projected(scene: Scene, il: int, x: Node, tokens: int) -> tuple[Node, Node]:
    """Q, K and V side by side [channels, tokens, sequences], and the output's gate."""
    slots = scene.slots
    if scene.has(il, "attn_qkv"):
        qkv = mul_mat(scene.weight(il, "attn_qkv"), x)
        return reshape(qkv, qkv.ne[0], tokens, slots), mul_mat(scene.weight(il, "attn_gate"), x)
    model = scene.model
    inner, key, groups = (model.number(f"ssm.{k}") for k in ("inner_size", "state_size", "group_count"))
    per_group = inner // groups
    both = linear(scene, il, "ssm_in", x)
    both = reshape(both, 2 * key + 2 * per_group, groups, tokens, slots)
    q, k = (view(both, (key, groups, tokens, slots), both.nb[1:4]) for _ in range(2))
    v, z = (view(both, (per_group, groups, tokens, slots), both.nb[1:4]) for _ in range(2))
    z = like("CONT", z)
    q, k, v = (cont(part, part.ne[0] * groups, tokens, slots) for part in (q, k, v))
    return concat(concat(q, k, 0), v, 0), z


def _decays(scene: Scene, il: int, x: Node, tokens: int) -> tuple[Node, Node]:
    """Step sizes and decays of each head: [1, heads, tokens, sequences] each."""
    model, slots = scene.model, scene.slots
    groups, heads = model.number("ssm.group_count"), model.number("ssm.time_step_rank")
    if scene.has(il, "ssm_ba"):
        both = linear(scene, il, "ssm_ba", x)
        both = reshape(both, 2 * heads // groups, groups, tokens, slots)
        b, a = (view(both, (heads // groups, groups, tokens, slots), both.nb[1:4]) for _ in range(2))
        beta = unary(like("CONT", b), "sigmoid")
        alpha = cont(a, heads, tokens, slots)
    else:
        beta = unary(reshape(linear(scene, il, "ssm_beta", x), 1, heads, tokens, slots), "sigmoid")
        alpha = reshape(linear(scene, il, "ssm_alpha", x), heads, tokens, slots)
    bias = scene.bias(il, "ssm_dt")
    alpha = alpha if bias is None else like("ADD", alpha, bias)
    decay = scene.find(il, "ssm_a", "")
    gate = like("MUL", unary(alpha, "softplus"), decay)
    return reshape(beta, 1, heads, tokens, slots), reshape(gate, 1, heads, tokens, slots)
