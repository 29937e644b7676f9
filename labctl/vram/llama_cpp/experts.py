"""Mixture-of-experts layers.

Source: llama.cpp b11549, ``src/llama-graph.cpp`` (``build_moe_ffn``).
"""

from __future__ import annotations

from dataclasses import replace

from labctl.values import dataclass
from labctl.vram.llama_cpp.graph import (
    Node,
    get_rows,
    glu,
    like,
    mul_mat,
    mul_mat_id,
    repeat,
    reshape,
    set_rows,
    sum_rows,
    top_k,
    unary,
    view,
)
from labctl.vram.llama_cpp.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How an architecture chooses and weighs experts.

    Attributes:
        gating: ``softmax``, ``sigmoid`` or ``softmax_weight`` (softmax over the chosen ones only).
        normalised: the weights of the chosen experts are made to sum to one.
        scaled: the weights are multiplied by a constant; None: when the file gives one other than 1.
        activation: ``silu``, ``gelu``, ``swiglu_oai``, ``relu``, ``relu_sqr``.
        weigh_first: the input rather than the output of an expert is weighted (llama4).
        from_file: what the file says of gating and normalisation counts more.
    """

    gating: str = "softmax"
    normalised: bool = True
    scaled: bool | None = None
    activation: str = "silu"
    weigh_first: bool = False
    from_file: bool = True


_GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_weight"}


def routing_of(scene: Scene, base: Routing) -> Routing:
    """``base`` with what the model file says instead."""
    if not base.from_file:
        return base
    gating = _GATING.get(scene.model.number("expert_gating_func", 0), base.gating)
    normalised = scene.model.flag("expert_weights_norm", default=base.normalised)
    return replace(base, gating=gating, normalised=normalised)


def experts(scene: Scene, il: int, x: Node, routing: Routing, scores: Node | None = None) -> Node:
    """The weighted sum of the chosen experts of each token: [width, tokens]."""
    chosen, weights = _route(scene, il, x, routing, scores)
    modern = scene.rules.modern
    if modern:
        scene.graph.expand(weights)
    width, tokens = x.ne[0], x.ne[1]
    used = chosen.ne[0]
    x = reshape(x, width, 1, tokens)
    if routing.weigh_first:
        x = like("MUL", repeat(x, width, used, tokens), weights)
    x = _expert(scene, il, _activated(scene, il, x, chosen, routing.activation), chosen, "ffn_down_exps")
    if not routing.weigh_first:
        x = like("MUL", x, weights)
    if modern:
        scene.graph.expand(x)
    return _summed(scene, x, used)


def _summed(scene: Scene, x: Node, used: int) -> Node:
    parts = [view(x, (x.ne[0], x.ne[2]), (x.nb[2],)) for _ in range(used)]
    modern = scene.rules.modern
    for part in parts if modern else ():
        scene.graph.expand(part)
    total = parts[0]
    for part in parts[1:]:
        total = like("ADD", total, part)
        if modern:
            scene.graph.expand(total)
    return like("CONT", total) if used == 1 else total


def _route(scene: Scene, il: int, x: Node, routing: Routing, scores: Node | None) -> tuple[Node, Node]:
    """Chosen experts [used, tokens] and their weights [1, used, tokens]."""
    model, tokens, used = scene.model, x.ne[1], scene.model.experts_used
    logits = scores if scores is not None else mul_mat(scene.weight(il, "ffn_gate_inp"), x)
    bias = scene.bias(il, "ffn_gate_inp")
    if bias is not None:
        logits = like("ADD", logits, bias)
    if routing.gating == "softmax":
        logits = like("SOFT_MAX", logits)
    selection = logits
    probabilities = unary(logits, "sigmoid") if routing.gating == "sigmoid" else logits
    if not routing.weigh_first:
        selection = probabilities
    extra = scene.bias(il, "exp_probs_b")
    if extra is not None:
        selection = like("ADD", selection, extra)
    if model.number("expert_group_count", 0) > 1:
        selection = _best_groups(scene, selection)
    chosen = top_k(selection, used)
    weights = get_rows(reshape(probabilities, 1, probabilities.ne[0], tokens), chosen)
    if routing.gating == "softmax_weight":
        weights = reshape(like("SOFT_MAX", reshape(weights, used, tokens)), 1, used, tokens)
    if routing.normalised:
        flat = reshape(weights, used, tokens)
        total = sum_rows(flat)
        total = like("CLAMP", total) if scene.rules.modern else total
        weights = reshape(like("DIV", flat, total), 1, used, tokens)
    scale = model.real("expert_weights_scale")
    if routing.scaled if routing.scaled is not None else scale not in {0.0, 1.0}:
        weights = like("SCALE", weights)
    return chosen, weights


def _best_groups(scene: Scene, selection: Node) -> Node:
    """Mask out all but the best groups of experts."""
    groups, used = scene.model.number("expert_group_count"), scene.model.number("expert_group_used_count")
    experts_, tokens = selection.ne[0], selection.ne[1]
    grouped = reshape(selection, experts_ // groups, groups, tokens)
    best = top_k(grouped, 2)
    flat = get_rows(reshape(grouped, 1, *grouped.ne[:3]), best)
    sums = sum_rows(reshape(flat, flat.ne[1], flat.ne[2], flat.ne[3]))
    chosen = top_k(reshape(sums, sums.ne[1], sums.ne[2]), used)
    kept = get_rows(grouped, chosen)
    return reshape(set_rows(like("FILL", grouped), kept, chosen), experts_, tokens)


def _expert(scene: Scene, il: int, x: Node, chosen: Node, name: str) -> Node:
    x = mul_mat_id(scene.weight(il, name), x, chosen)
    scale = scene.find(il, name, ".scale")
    if scale is not None:
        per_expert = repeat(reshape(scale, 1, scale.ne[0], 1), 1, scale.ne[0], x.ne[2])
        x = like("MUL", x, get_rows(per_expert, chosen))
    bias = scene.bias(il, name)
    return x if bias is None else like("ADD_ID", x, bias, chosen)


def _activated(scene: Scene, il: int, x: Node, chosen: Node, activation: str) -> Node:
    kind = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu"}.get(activation, activation)
    if scene.has(il, "ffn_gate_up_exps"):
        both = _expert(scene, il, x, chosen, "ffn_gate_up_exps")
        half = (both.ne[0] // 2, both.ne[1], both.ne[2])
        gate, up = view(both, half, both.nb[1:3]), view(both, half, both.nb[1:3])
        return glu(kind, gate, up)
    up = _expert(scene, il, x, chosen, "ffn_up_exps")
    if scene.has(il, "ffn_gate_exps"):
        gate = _expert(scene, il, x, chosen, "ffn_gate_exps")
        if not scene.rules.modern:
            return like("MUL", up, unary(gate, activation))
        return glu(kind, gate, up)
    if activation == "relu_sqr":
        return like("SQR", unary(up, "relu"))
    return unary(up, activation)
