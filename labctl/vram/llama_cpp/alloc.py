"""A replay of ggml's graph allocator: how large must each backend's compute buffer be?

The allocator walks the nodes in order, places each result in the best-fitting free block (the last block may grow),
lets element-wise operations overwrite an operand they alone still need, and frees an operand after its last use.
The size of a buffer is the highest address ever used.

Source: llama.cpp b11549, ``ggml/src/ggml-alloc.c`` (``ggml_gallocr_alloc_graph_impl``, ``ggml_dyn_tallocr_*``).
CUDA and host buffers have no maximal size, so one chunk per buffer is enough here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

from labctl.vram.llama_cpp.graph import Node

IN_PLACE = frozenset(
    {
        "FILL", "SCALE", "DIAG_MASK_ZERO", "DIAG_MASK_INF", "ADD", "ADD_ID", "ADD1", "SUB", "MUL", "DIV", "SQR", "SQRT",
        "LOG", "UNARY", "ROPE", "RMS_NORM", "CLAMP", "SOFT_MAX",
    }
)  # fmt: skip
"""Operations that may overwrite an operand (``ggml_op_can_inplace``)."""

ENDLESS = 1 << 62


class Buffer:
    """Address space of one backend's compute buffer. All offsets and sizes are multiples of its alignment."""

    __slots__ = ("free_offsets", "free_sizes", "top")

    def __init__(self) -> None:
        self.free_offsets = [0]
        self.free_sizes = [ENDLESS]
        self.top = 0

    def take(self, size: int) -> int:
        """Allocate ``size`` bytes and return their offset: best fit, the later block on a tie, else the last block."""
        sizes = self.free_sizes
        last = len(sizes) - 1
        best, best_size = last, ENDLESS
        for i in range(last):
            if size <= sizes[i] <= best_size:
                best, best_size = i, sizes[i]
        offset = self.free_offsets[best]
        if sizes[best] == size:
            del self.free_offsets[best], sizes[best]
        else:
            self.free_offsets[best] = offset + size
            sizes[best] -= size
        self.top = max(self.top, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free ``size`` bytes at ``offset``, merging with free neighbours."""
        offsets, sizes = self.free_offsets, self.free_sizes
        at = bisect_left(offsets, offset)
        if at and offsets[at - 1] + sizes[at - 1] == offset:
            sizes[at - 1] += size
            if at < len(offsets) and offset + size == offsets[at]:
                sizes[at - 1] += sizes[at]
                del offsets[at], sizes[at]
        elif at < len(offsets) and offset + size == offsets[at]:
            offsets[at] = offset
            sizes[at] += size
        else:
            insort(offsets, offset)
            sizes.insert(at, size)


class Replay:
    """One run of the allocator over a scheduled graph.

    Args:
        sizes: bytes that a node takes in the buffer of a backend, already aligned.
        backends: number of backends.
    """

    def __init__(self, sizes: Callable[[Node, int], int], backends: int) -> None:
        self.sizes = sizes
        self.buffers = [Buffer() for _ in range(backends)]
        self.place: dict[Node, tuple[int, int, int]] = {}
        self.owned: set[Node] = set()

    def run(self, nodes: Sequence[tuple[Node, int]], leafs: Sequence[tuple[Node, int]]) -> list[int]:
        """Allocate the graph and return the bytes of each backend's buffer."""
        for node, backend in leafs:
            self._allocate(node, backend)
        self._count(nodes)
        for node, backend in nodes:
            for source in node.sources:
                self._allocate(source, backend)
            self._allocate(node, backend)
            for source in node.sources:
                self._release(source)
        return [buffer.top for buffer in self.buffers]

    def _count(self, nodes: Sequence[tuple[Node, int]]) -> None:
        for node, backend in nodes:
            if node.view is not None and node.op != "NONE":
                node.view.views += 1
            if node.input:
                self._allocate(node, backend)
            for source in node.sources:
                source.children += 1
                if source.input:
                    self._allocate(source, backend)

    def _allocate(self, node: Node, backend: int) -> None:
        if node.home is not None or node.view is not None or node in self.owned:
            return
        self.owned.add(node)
        if node.op in IN_PLACE and self._reuse(node):
            return
        size = self.sizes(node, backend)
        self.place[node] = (backend, self.buffers[backend].take(size) if size else 0, size)

    def _reuse(self, node: Node) -> bool:
        """Put ``node`` into the memory of an operand that nothing else needs, if there is one."""
        for parent in node.sources:
            if parent not in self.owned or parent.output or parent.children != 1 or parent.views:
                continue
            if parent.type != node.type or parent.ne != node.ne or parent.nb != node.nb:
                continue
            self.owned.discard(parent)
            backend, offset, size = self.place[parent]
            need = self.sizes(node, backend)
            if size > need:
                self.buffers[backend].give(offset + need, size - need)
            self.place[node] = (backend, offset, need)
            return True
        return False

    def _release(self, parent: Node) -> None:
        parent.children -= 1
        if parent.children or parent.views:
            return
        held = parent
        if parent.view is not None:
            held = parent.view
            held.views -= 1
            if held.views or held.children:
                return
        if held in self.owned and not held.output:
            backend, offset, size = self.place[held]
            if size:
                self.buffers[backend].give(offset, size)
            self.owned.discard(held)
