"""Recurrent states, and the Mamba, short-convolution and delta-net layers that use them.

Source: llama.cpp b11549, ``src/llama-graph.cpp`` (``build_rs``), ``src/models/mamba-base.cpp``,
``src/models/delta-net-base.cpp``, ``src/models/lfm2.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.vram.llama_cpp.blocks import linear, norm
from labctl.vram.llama_cpp.graph import (
    Node,
    concat,
    copy_into,
    get_rows,
    glu,
    like,
    mul_mat,
    reshape,
    transpose,
    unary,
    view,
)
from labctl.vram.llama_cpp.scene import Scene

Reader = Callable[[Node, Node], Node]
"""(all states, ids of the batch's states) → what the layer makes of them."""


def states(scene: Scene, il: int, part: str, reader: Reader | None = None) -> Node:
    """The states of the batch's sequences, ``r`` (convolution) or ``s`` (scan): [elements, sequences]."""
    store, slots, graph = scene.cached(part, il), scene.slots, scene.graph
    size = store.ne[0]
    flat = reshape(store, size, store.ne[1])
    zero = view(flat, (size,))
    graph.expand(Node("SCALE", "F32", zero.ne, [zero], zero))
    ids = scene.given("state ids", "I32", slots)
    gathered = get_rows(flat, ids if reader is None else scene.shared("state tail", lambda: view(ids, (slots - 1,))))
    if reader is None:
        out = view(gathered, (size, slots), (gathered.nb[1],))
    else:
        out = reader(flat, scene.shared("state main", lambda: view(ids, (slots,))))
    graph.expand(out)
    graph.expand(copy_into(view(gathered, (size, 0), (gathered.nb[1],)), view(store, (size, 0), (store.nb[1],))))
    return out


def _convolved(scene: Scene, il: int, x: Node, channels: int) -> Node:
    """Put the saved columns before ``x`` [channels, tokens, sequences], and save the new last ones."""
    width = scene.weight(il, "ssm_conv1d").ne[0] - 1
    saved = reshape(states(scene, il, "r"), width, channels, scene.slots)
    joined = concat(saved, transpose(x), 0)
    last = view(joined, (width, channels, scene.slots), joined.nb[1:3])
    store = scene.cached("r", il)
    scene.graph.expand(copy_into(last, view(store, (width * channels, scene.slots), (store.nb[1],))))
    return joined


def _conv(scene: Scene, il: int, joined: Node) -> Node:
    kernel = scene.weight(il, "ssm_conv1d")
    return Node("SSM_CONV", "F32", (kernel.ne[1], joined.ne[0] - kernel.ne[0] + 1, joined.ne[2], 1), [joined, kernel])


def _scanned(scene: Scene, il: int, scan: Callable[[Node, Node], Node]) -> Node:
    """Run a scan over the saved states and save the new ones, which lie behind the result."""
    y = states(scene, il, "s", scan)
    store = scene.cached("s", il)
    count = store.ne[0] * scene.slots
    scene.graph.expand(copy_into(view(y, (count,)), view(store, (count,))))
    return y


def mamba(scene: Scene, il: int, x: Node) -> Node:
    """A Mamba-1 layer: [width, tokens] → [width, tokens]."""
    model, slots = scene.model, scene.slots
    inner, state, rank = (model.number(f"ssm.{k}") for k in ("inner_size", "state_size", "time_step_rank"))
    tokens = x.ne[1] // slots
    xz = linear(scene, il, "ssm_in", reshape(x, x.ne[0], tokens, slots))
    x, z = (view(xz, (inner, tokens, slots), xz.nb[1:3]) for _ in range(2))
    x = unary(like("ADD", _conv(scene, il, _convolved(scene, il, x, inner)), scene.bias(il, "ssm_conv1d")), "silu")
    mixed = mul_mat(scene.weight(il, "ssm_x"), x)
    dt = view(mixed, (rank, tokens, slots), mixed.nb[1:3])
    b, c = (view(mixed, (state, 1, tokens, slots), (4 * state, *mixed.nb[1:3])) for _ in range(2))
    if model.flag("ssm.dt_b_c_rms") or scene.has(il, "ssm_dt_norm"):
        dt = norm(dt, scene.find(il, "ssm_dt_norm"))
        b, c = norm(b, scene.find(il, "ssm_b_norm")), norm(c, scene.find(il, "ssm_c_norm"))
    else:
        dt = like("CONT", dt)
    dt = like("ADD", mul_mat(scene.weight(il, "ssm_dt"), dt), scene.bias(il, "ssm_dt"))
    heads = reshape(x, 1, inner, tokens, slots)
    decay = _bare(scene, il, "ssm_a")

    def scan(flat: Node, ids: Node) -> Node:
        saved = reshape(flat, state, 1, inner, slots)
        return _scan_node(saved, heads, dt, decay, b, c, ids)

    y = _scanned(scene, il, scan)
    y = view(y, (inner, tokens, slots), heads.nb[2:4])
    y = like("ADD", y, like("MUL", x, _bare(scene, il, "ssm_d")))
    y = linear(scene, il, "ssm_out", glu("swiglu", like("CONT", z), y))
    return reshape(y, y.ne[0], tokens * slots)


def _scan_node(saved: Node, x: Node, dt: Node, decay: Node, b: Node, c: Node, ids: Node) -> Node:
    size = x.elements + saved.ne[0] * saved.ne[1] * saved.ne[2] * ids.ne[0]
    return Node("SSM_SCAN", "F32", (size, 1, 1, 1), [saved, x, dt, decay, b, c, ids])


def _bare(scene: Scene, il: int, name: str) -> Node:
    """A tensor without the suffix ``.weight``."""
    node = scene.find(il, name, "")
    return node if node is not None else scene.weight(il, name)


def mamba2(scene: Scene, il: int, x: Node) -> Node:
    """A Mamba-2 layer: [width, tokens] → [width, tokens]."""
    model, slots = scene.model, scene.slots
    inner, state, heads, groups = (
        model.number(f"ssm.{k}") for k in ("inner_size", "state_size", "time_step_rank", "group_count")
    )
    head, tokens, channels = inner // heads, x.ne[1] // slots, inner + 2 * groups * state
    saved = states_first(scene, il, channels)
    mixed = linear(scene, il, "ssm_in", x)
    mixed = reshape(mixed, mixed.ne[0], tokens, slots)
    z = view(mixed, (head, heads, tokens, slots), (4 * head, *mixed.nb[1:3]))
    xbc = view(mixed, (channels, tokens, slots), mixed.nb[1:3])
    dt = view(mixed, (heads, tokens, slots), mixed.nb[1:3])
    joined = concat(saved, transpose(xbc), 0)
    last = view(joined, (saved.ne[0], channels, slots), joined.nb[1:3])
    store = scene.cached("r", il)
    scene.graph.expand(copy_into(last, view(store, (store.ne[0], slots), (store.nb[1],))))
    conv = _conv(scene, il, joined)
    bias = scene.bias(il, "ssm_conv1d")
    conv = unary(conv if bias is None else like("ADD", conv, bias), "silu")
    part = view(conv, (head, heads, tokens, slots), (4 * head, *conv.nb[1:3]))
    b, c = (view(conv, (state, groups, tokens, slots), (4 * state, *conv.nb[1:3])) for _ in range(2))
    dt = like("ADD", like("CONT", dt), scene.bias(il, "ssm_dt"))
    decay = _bare(scene, il, "ssm_a")

    def scan(flat: Node, ids: Node) -> Node:
        return _scan_node(reshape(flat, state, head, heads, slots), part, dt, decay, b, c, ids)

    y = _scanned(scene, il, scan)
    y = view(y, (head, heads, tokens, slots), (4 * head, 4 * inner, 4 * inner * tokens))
    y = like("ADD", y, like("MUL", part, _bare(scene, il, "ssm_d")))
    y = glu("swiglu", like("CONT", z), y)
    if scene.has(il, "ssm_norm"):
        y = norm(reshape(y, inner // groups, groups, tokens, slots), scene.find(il, "ssm_norm"))
    return linear(scene, il, "ssm_out", reshape(y, inner, tokens * slots))


def states_first(scene: Scene, il: int, channels: int) -> Node:
    """The saved columns of a convolution: [kernel - 1, channels, sequences]."""
    return reshape(states(scene, il, "r"), scene.weight(il, "ssm_conv1d").ne[0] - 1, channels, scene.slots)


def short_convolution(scene: Scene, il: int, x: Node) -> Node:
    """LFM2's gated short convolution: [width, tokens] → [width, tokens]."""
    slots, graph = scene.slots, scene.graph
    tokens = x.ne[1] // slots
    mixed = linear(scene, il, "shortconv.in_proj", reshape(x, x.ne[0], tokens, slots))
    width = mixed.ne[0] // 3
    b, c, v = (view(mixed, (width, tokens, slots), mixed.nb[1:3]) for _ in range(3))
    product = transpose(like("MUL", b, v))
    kernel = scene.weight(il, "shortconv.conv")
    columns = kernel.ne[0] - 1
    saved = reshape(states(scene, il, "r"), columns, width, slots)
    joined = concat(saved, product, 0)
    last = view(joined, (columns, width, slots), joined.nb[1:3])
    store = scene.cached("r", il)
    graph.expand(copy_into(last, view(store, (store.ne[0], slots), (store.nb[1],))))
    conv = Node("SSM_CONV", "F32", (kernel.ne[1], joined.ne[0] - columns, slots, 1), [joined, kernel])
    y = linear(scene, il, "shortconv.out_proj", like("MUL", c, conv))
    return reshape(y, y.ne[0], tokens * slots)
