"""A replay of ggml's backend scheduler: which backend runs each node, and which tensors are copied between them.

Operations run where their weights are; a GPU takes over operations on host weights when the batch is large enough,
which puts a copy of those weights into its compute buffer. A split is a run of nodes on one backend; what it needs
from elsewhere is copied in when it starts.

Source: llama.cpp b11549, ``ggml/src/ggml-backend.cpp`` (``ggml_backend_sched_split_graph``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labctl.vram.llama_cpp.alloc import Replay
from labctl.vram.llama_cpp.backends import Machine
from labctl.vram.llama_cpp.fusion import Keeps, optimise
from labctl.vram.llama_cpp.graph import VIEW_OPS, Graph, Node

PIPELINE_COPIES = 4
"""Copies of every input while several GPUs work on successive batches (``GGML_SCHED_MAX_COPIES``)."""


@dataclass(slots=True)
class Split:
    """Consecutive nodes on one backend, and what must be copied there first."""

    backend: int
    nodes: list[Node] = field(default_factory=list)
    inputs: list[Node] = field(default_factory=list)


def reserve(graph: Graph, machine: Machine, *, pipeline: bool = False) -> list[int]:
    """Bytes of the compute buffer of each backend: the GPUs in order, then the host."""
    copies = PIPELINE_COPIES if pipeline else 1
    _assign(graph, machine)
    splits = _split(graph, machine, copies)
    nodes, leafs = _flatten(graph, machine, splits, copies)
    return Replay(machine.size, machine.gpus + 1).run(nodes, leafs)


def _home_backend(node: Node, op: Node, machine: Machine) -> int:
    """First backend that can both use the buffer ``node`` lies in and run ``op``; -1 when there is none."""
    home = node.buffer
    return home if home is not None and machine.runs(home, op) else -1


def _initial(node: Node, machine: Machine) -> int:
    """Backend that follows from buffers, inputs and weights alone; -1 when they do not tell."""
    if node.buffer is not None:
        return _home_backend(node, node, machine)
    if node.input:
        return machine.cpu
    if node.op in {"ROPE", "FLASH_ATTN_EXT"}:
        return -1
    for source in node.sources:
        if source.weight:
            backend = _home_backend(source, node, machine)
            if machine.op_offload and backend == machine.cpu:
                for gpu in range(machine.gpus):
                    if machine.runs(gpu, node) and machine.wants(node):
                        return gpu
            return backend
    return -1


def _spread(nodes: list[Node], machine: Machine, *, gpus_only: bool) -> None:
    """Give unassigned nodes the backend of the assigned node before them."""
    current = -1
    for node in nodes:
        if node.backend != -1:
            current = -1 if gpus_only and node.backend == machine.cpu else node.backend
        elif current != -1 and machine.runs(current, node):
            node.backend = current


def _assign(graph: Graph, machine: Machine) -> None:
    for node in (*graph.leafs, *graph.nodes):
        if node.backend == -1:
            node.backend = _initial(node, machine)
    real = [node for node in graph.nodes if node.op not in VIEW_OPS]
    backwards = real[::-1]
    _spread(real, machine, gpus_only=True)
    _spread(backwards, machine, gpus_only=True)
    _spread(real, machine, gpus_only=False)
    _spread(backwards, machine, gpus_only=False)
    for node in real:
        if node.backend == -1:
            node.backend = _most_supported(node, machine)
    for node in graph.nodes:
        _assign_sources(node, machine)


def _most_supported(node: Node, machine: Machine) -> int:
    best, backend = -1, -1
    for candidate in range(machine.gpus + 1):
        if machine.runs(candidate, node):
            known = sum(_lies_on(source, candidate) for source in node.sources)
            if known > best:
                best, backend = known, candidate
    return backend


def _lies_on(source: Node, backend: int) -> bool:
    home = source.buffer
    if home is None:
        home = source.backend
        if home == -1 and source.view is not None:
            home = source.view.backend
    return home == backend


def _assign_sources(node: Node, machine: Machine) -> None:
    if node.view is not None and node.backend == -1:
        node.backend = node.view.backend
    for source in node.sources:
        if source.backend == -1:
            source.backend = source.view.backend if source.view is not None else node.backend
    if node.backend == -1:
        node.backend = next(b for b in range(machine.gpus + 1) if machine.runs(b, node))


def _split(graph: Graph, machine: Machine, copies: int) -> list[Split]:
    first = next((node.backend for node in graph.nodes if node.op not in VIEW_OPS), machine.cpu)
    splits = [Split(first)]
    for node in graph.nodes:
        split = splits[-1]
        if node.op not in VIEW_OPS:
            if node.backend != split.backend or (split.inputs and _needs_weight(node, split.backend)):
                split = Split(node.backend)
                splits.append(split)
            node.sources = [_fetch(source, split, copies) for source in node.sources]
        split.nodes.append(node)
    return splits


def _needs_weight(node: Node, backend: int) -> bool:
    """A weight must be copied: a new split lets the memory of the previous copies be used again."""
    return any(source.weight and source.backend != backend for source in node.sources)


def _fetch(source: Node, split: Split, copies: int) -> Node:
    """``source`` itself, or its copy in the split's backend."""
    backend = split.backend
    if source.backend == backend or _lies_on(source, backend):
        return source
    if source.copies is None:
        source.copies = {}
    if backend not in source.copies:
        source.copies[backend] = [_copy(source, copies) for _ in range(copies)]
        split.inputs.append(source)
    return source.copies[backend][0]


def _copy(source: Node, copies: int) -> Node:
    duplicate = Node("NONE", source.type, source.ne, [], None, source.nb)
    duplicate.input = duplicate.output = copies > 1
    return duplicate


Placed = list[tuple[Node, int]]


def _flatten(graph: Graph, machine: Machine, splits: list[Split], copies: int) -> tuple[Placed, Placed]:
    """The node and leaf lists that the allocator sees: input copies precede the nodes of their split."""
    keeps = optimise([s.nodes for s in splits if s.backend != machine.cpu]) if machine.rules.fusion_keeps else Keeps()
    nodes: Placed = []
    for split in splits:
        for source in split.inputs:
            nodes.append((_dependency([source]), source.backend))
            nodes.append((_copies(source, split)[0], split.backend))
        for node in split.nodes:
            nodes.append((node, node.backend))
            if node in keeps.until:
                nodes += [(_dependency(group), split.backend) for group in keeps.after(node)]
    leafs = _pipelined(graph, splits, copies) if copies > 1 else []
    return nodes, [*leafs, *((leaf, leaf.backend) for leaf in graph.leafs)]


def _pipelined(graph: Graph, splits: list[Split], copies: int) -> Placed:
    """All copies of all inputs: they are allocated first and never freed."""
    leafs: Placed = []
    for leaf in graph.leafs:
        if leaf.input:
            leaf.output = True
            leafs.append((leaf, leaf.backend))
            leafs += [(_copy(leaf, copies), leaf.backend) for _ in range(copies - 1)]
    for split in splits:
        for source in split.inputs:
            leafs += [(copy, split.backend) for copy in _copies(source, split)]
    return leafs


def _copies(source: Node, split: Split) -> list[Node]:
    return (source.copies or {})[split.backend]


def _dependency(tensors: list[Node]) -> Node:
    """A node that is never run and only keeps ``tensors`` alive until here."""
    first = tensors[0]
    return Node("NONE", first.type, first.ne, tensors, first, first.nb)
