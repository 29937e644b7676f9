"""An upper bound for architectures that have no graph here.

Everything a block computes is taken to be alive at once: the result of every weight matrix, the scores or flash
attention's result, and a few copies of the residual stream. llama.cpp frees most of it earlier.
"""

from __future__ import annotations

import re

from labctl.vram.llama_cpp.graph import Node, mul_mat
from labctl.vram.llama_cpp.scene import Scene
from labctl.vram.llama_cpp.transformer import Recipe, finish, rows, start

_STREAMS = 4
"""Copies of the residual stream that are taken to be alive beside a block's results."""
_SPARSE = 17
"""Tensors of all cells × tokens that sparse attention is taken to hold at once."""
_ROUTED = re.compile(r"ffn_\w+_(ch)?exps\b")


def build(scene: Scene) -> None:
    """Build a graph that allocates at least as much as the real one."""
    x = start(scene)
    for il in scene.sequence:
        results = [Node("BOUND", "F32", x.ne, [x]) for _ in range(_STREAMS)]
        results += _products(scene, il, x)
        results += _scores(scene, il, x)
        x = Node("BOUND", "F32", x.ne, [x, *results])
        scene.graph.expand(x)
    finish(scene, Recipe(), rows(scene, x))


def _products(scene: Scene, il: int, x: Node) -> list[Node]:
    """The result of every weight matrix of the block."""
    results = []
    for tensor in scene.model.facts.tensors:
        match = re.fullmatch(rf"blk\.{il}\.(.+)\.weight", tensor.name)
        if not match or len(tensor.shape) < 2:
            continue
        weight = scene.weight(il, match[1])
        used = max(scene.model.experts_used, 1) if _ROUTED.match(match[1]) else 1
        given = Node("VIEW", "F32", (weight.ne[0], x.ne[1], 1, 1), [x], x)
        results.append(mul_mat(weight, given))
        results += [Node("BOUND", "F32", results[-1].ne, [results[-1]]) for _ in range(used - 1)]
    return results


def _scores(scene: Scene, il: int, x: Node) -> list[Node]:
    """Attention scores, or flash attention's f16 copies of a quantised cache."""
    if not scene.cache.attends(il):
        return []
    extra = _indexer(scene, il, x)
    keys, mask = scene.cached("k", il), scene.mask(sliding=scene.model.swa(il))
    if not scene.flash:
        shape = (keys.ne[1], x.ne[1], max(scene.model.heads(il), 1), 1)
        return [*extra, Node("BOUND", "F32", shape, [x, mask])]
    if keys.type == "F16":
        return [*extra, Node("BOUND", "F32", x.ne, [x, mask])]
    return [*extra, *(Node("BOUND", "F16", keys.ne, [x, mask]) for _ in range(2))]


def _indexer(scene: Scene, il: int, x: Node) -> list[Node]:
    """Sparse attention's scores, orders and masks over all cells."""
    if not any(name.startswith(f"blk.{il}.indexer.") for name in scene.model.tensors):
        return []
    return [Node("BOUND", "F32", (scene.cache.cells, x.ne[1], 1, 1), [x]) for _ in range(_SPARSE)]
