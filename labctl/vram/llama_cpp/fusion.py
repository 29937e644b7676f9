"""Operands that CUDA's fused mixture-of-experts kernels keep allocated.

Where the backend will later run several nodes as one kernel, it asks the allocator not to reuse the kernel's operands
before the kernel's last node.

Source: llama.cpp b11549, ``ggml/src/ggml-cuda/ggml-cuda.cu`` (``ggml_backend_cuda_graph_optimize`` and the matchers
``ggml_cuda_match_shared_expert``, ``ggml_cuda_match_moe_weighted_reduction``, ``ggml_cuda_topk_moe_fusion``).
"""

from __future__ import annotations

from collections.abc import Iterable

from labctl.vram.llama_cpp.graph import Node
from labctl.vram.llama_cpp.quants import is_quantized

GROUP = 10
"""Tensors per dependency node (``GGML_MAX_SRC``)."""
MAX_REDUCED = 15
"""Most experts whose weighted sum is one kernel (``MOE_WEIGHTED_REDUCTION_MAX_EXPERTS``)."""


class Keeps:
    """Tensors to keep until a node has run."""

    def __init__(self) -> None:
        self.until: dict[Node, list[Node]] = {}

    def add(self, tensor: Node, until: Node) -> None:
        """Keep ``tensor`` allocated until ``until`` has run."""
        kept = self.until.setdefault(until, [])
        if tensor not in kept:
            kept.append(tensor)

    def after(self, node: Node) -> list[list[Node]]:
        """Groups of tensors that are kept until ``node``."""
        kept = self.until[node]
        return [kept[i : i + GROUP] for i in range(0, len(kept), GROUP)]


def optimise(splits: Iterable[list[Node]]) -> Keeps:
    """Reorder the nodes of GPU splits in place as CUDA does, and say what must be kept."""
    keeps = Keeps()
    for nodes in splits:
        _shared_experts(nodes, keeps)
        _fused(nodes, keeps)
    return keeps


def _shared_experts(nodes: list[Node], keeps: Keeps) -> None:
    """Move the shared expert's products right behind the routed ones when one kernel can do both."""
    for i in range(len(nodes) - 5):
        if nodes[i].op != "MUL_MAT_ID":
            continue
        j = _shared_position(nodes, i)
        if j is None:
            continue
        moved = nodes[j : j + 3]
        del nodes[j : j + 3]
        nodes[i + 3 : i + 3] = moved
        up = nodes[i + 2].sources[1]
        for operand in up.sources[1:3]:
            keeps.add(operand, nodes[i + 5])


def _shared_position(nodes: list[Node], i: int) -> int | None:
    if not _is_gated_pair(nodes, i, "MUL_MAT_ID"):
        return None
    for j in range(i + 3, len(nodes) - 2):
        if nodes[j].op == "MUL_MAT_ID" and nodes[j + 1].op == "MUL_MAT_ID":
            return None
        if (
            nodes[j].op == "MUL_MAT"
            and _is_gated_pair(nodes, j, "MUL_MAT")
            and _same_kernel(nodes[i + 2], nodes[j + 2])
        ):
            return j
    return None


def _is_gated_pair(nodes: list[Node], i: int, op: str) -> bool:
    """Two products of the same operand followed by their GLU."""
    a, b, out = nodes[i : i + 3]
    if (a.op, b.op, out.op) != (op, op, "GLU") or len(out.sources) != 2:
        return False
    if {id(a), id(b)} != {id(out.sources[0]), id(out.sources[1])} or out.variant not in {
        "swiglu",
        "geglu",
        "swiglu_oai",
    }:
        return False
    w, x = a.sources[0], b.sources[0]
    return w.type == x.type and w.ne == x.ne and a.sources[1] is b.sources[1]


def _same_kernel(routed: Node, shared: Node) -> bool:
    up, shared_up = routed.sources[1], shared.sources[1]
    weight, shared_weight, operand = up.sources[0], shared_up.sources[0], up.sources[1]
    return (
        weight.home is not None
        and is_quantized(weight.type)
        and operand.op == "RESHAPE"
        and operand.sources[0] is shared_up.sources[1]
        and weight.type == shared_weight.type
        and weight.ne[:2] == shared_weight.ne[:2]
        and shared_weight.home is not None
        and routed.variant == shared.variant
    )


def _fused(nodes: list[Node], keeps: Keeps) -> None:
    i = 0
    while i < len(nodes):
        node = nodes[i]
        if node.op == "MUL":
            i += _weighted_sum(nodes, i, keeps)
        elif node.op in {"UNARY", "SOFT_MAX"} and i + 4 < len(nodes) and nodes[i + 1].op == "RESHAPE":
            i += _routing(nodes, i, keeps)
        i += 1


def _weighted_sum(nodes: list[Node], i: int, keeps: Keeps) -> int:
    """Experts' outputs × weights, then views and additions. Returns how many nodes to skip."""
    product = nodes[i]
    experts, weights = product.sources
    used = product.ne[1]
    if experts.ne != product.ne or weights.ne != (1, *product.ne[1:]) or not 2 <= used <= MAX_REDUCED:
        return 0
    pattern = nodes[i + 1 : i + 2 * used]
    views = [n for n in pattern if n.op == "VIEW" and n.view is product]
    sums = [n for n in pattern if n.op == "ADD"]
    if len(views) != used or len(sums) != used - 1:
        return 0
    for operand in (experts, weights):
        keeps.add(operand, sums[-1])
    return 2 * used - 1


def _routing(nodes: list[Node], i: int, keeps: Keeps) -> int:
    """Scores → the best experts and their weights. Returns how many nodes to skip."""
    scores = nodes[i]
    if scores.op == "UNARY" and scores.variant != "sigmoid":
        return 0
    if scores.op == "SOFT_MAX" and len(scores.sources) > 1:
        return 0
    ops = [n.op for n in nodes[i : i + 14]]
    biased = ops[2] == "ADD"
    expected = ["RESHAPE", *(["ADD"] if biased else []), "ARGSORT", "VIEW", "GET_ROWS"]
    n = 1 + len(expected)
    if ops[1:n] != expected or nodes[i + n - 1].sources[0] is not nodes[i + 1]:
        return 0
    if ops[n : n + 5] == ["RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE"]:
        n += 5
    if ops[n : n + 1] == ["SCALE"]:
        n += 1
    if not _has_kernel(scores.ne[0]) or i + n >= len(nodes):
        return 0
    until = nodes[i + n]
    for node in nodes[i : i + n]:
        keeps.add(node, until)
        for source in node.sources:
            keeps.add(source, until)
    return n - 1


def _has_kernel(experts: int) -> bool:
    return (experts & (experts - 1) == 0 and experts <= 512) or experts in {288, 576}
