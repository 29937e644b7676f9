"""A light operation graph: tensors as shapes, operations as names, in the order in which ggml evaluates them.

Nothing is computed. A node knows its shape, strides, type, whether it is a view, and its sources; that is all that
ggml's scheduler and allocator look at. Shapes are in ggml order: ``ne[0]`` is the contiguous dimension.

Source of every operation's result shape: llama.cpp b11549, ``ggml/src/ggml.c``; of the visiting order:
``ggml_visit_parents_graph`` there.
"""

from __future__ import annotations

from math import prod

from labctl.vram.llama_cpp.quants import block, row_bytes

Shape = tuple[int, int, int, int]

VIEW_OPS = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})
"""Operations that only reinterpret memory (``ggml_is_view_op``)."""


class Node:
    """One tensor of the graph.

    Attributes:
        op: operation that produces it; ``NONE`` for weights, caches and inputs.
        type: ggml type name.
        ne: elements per dimension.
        nb: stride of each dimension in bytes.
        sources: operands, in ggml's order.
        view: the tensor whose memory it shares (never itself a view), or None.
        home: index of the backend whose buffer already holds it (weights, caches), or None.
        weight: whether that buffer is a weight buffer.
        input: a graph input, filled by the host.
        output: never freed by the allocator.
        variant: which kind of UNARY or GLU; Hadamard products of MUL_MAT.
        backend: set by the scheduler; -1 while unassigned.
    """

    __slots__ = (
        "backend",
        "children",
        "copies",
        "home",
        "input",
        "key",
        "nb",
        "ne",
        "op",
        "output",
        "sources",
        "type",
        "variant",
        "view",
        "views",
        "weight",
    )

    def __init__(
        self, op: str, type_name: str, ne: Shape, sources: list[Node], view: Node | None = None, nb: Shape | None = None
    ) -> None:
        self.op = op
        self.type = type_name
        self.ne = ne
        self.nb = strides(type_name, ne) if nb is None else nb
        self.sources = sources
        self.view: Node | None = view.view if view is not None and view.view is not None else view
        self.home: int | None = None
        self.weight = False
        self.input = False
        self.output = False
        self.variant = ""
        self.backend = -1
        self.children = 0
        self.views = 0
        self.copies: dict[int, list[Node]] | None = None
        self.key: tuple[int, int, int] | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.ne)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.ne[1] * self.ne[2] * self.ne[3]

    @property
    def buffer(self) -> int | None:
        """Backend index of the buffer that already holds it or what it is a view of."""
        return self.view.home if self.view is not None else self.home

    def contiguous(self) -> bool:
        """Whether the strides are those of a packed tensor (``ggml_is_contiguous``)."""
        expected = strides(self.type, self.ne)
        return all(n == 1 or a == b for n, a, b in zip(self.ne[1:], self.nb[1:], expected[1:], strict=True)) and (
            self.ne[0] == 1 or self.nb[0] == expected[0]
        )

    def contiguous_rows(self) -> bool:
        """Whether each row is packed (``ggml_is_contiguous_rows``)."""
        return self.ne[0] == 1 or self.nb[0] == block(self.type)[1]

    def bytes(self) -> int:
        """Bytes spanned (``ggml_nbytes``)."""
        per, size = block(self.type)
        if min(self.ne) <= 0:
            return 0
        if per == 1:
            return size + sum((n - 1) * stride for n, stride in zip(self.ne, self.nb, strict=True))
        return self.ne[0] * self.nb[0] // per + sum(
            (n - 1) * stride for n, stride in zip(self.ne[1:], self.nb[1:], strict=True)
        )


def strides(type_name: str, ne: Shape) -> Shape:
    """Strides in bytes of a packed tensor."""
    per, size = block(type_name)
    one = ne[0] // per * size
    two = one * ne[1]
    return (size, one, two, two * ne[2])


def shape(*dims: int) -> Shape:
    """Fill up to four dimensions with ones."""
    a, b, c, d = (*dims, 1, 1, 1, 1)[:4]
    return (a, b, c, d)


class Graph:
    """Nodes in evaluation order and leafs in order of first use, grown by ``expand`` as ggml grows its graph."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.leafs: list[Node] = []
        self._seen: set[Node] = set()

    def expand(self, node: Node) -> None:
        """Add ``node`` and everything it needs that is not there yet, sources first, left to right."""
        if node in self._seen:
            return
        self._seen.add(node)
        for source in node.sources:
            if source not in self._seen:
                self.expand(source)
        (self.leafs if node.op == "NONE" else self.nodes).append(node)


def leaf(type_name: str, *dims: int) -> Node:
    """A tensor that no operation produces."""
    return Node("NONE", type_name, shape(*dims), [])


def graph_input(type_name: str, *dims: int) -> Node:
    """A graph input."""
    node = leaf(type_name, *dims)
    node.input = True
    return node


def like(op: str, a: Node, *others: Node | None, variant: str = "") -> Node:
    """An operation whose result is packed and has the shape and type of ``a``."""
    node = Node(op, a.type, a.ne, [a, *(o for o in others if o is not None)])
    node.variant = variant
    return node


def unary(a: Node, kind: str) -> Node:
    """Element-wise function."""
    return like("UNARY", a, variant=kind)


def mul_mat(a: Node, b: Node) -> Node:
    """Matrix product: [k, m] × [k, n] → f32 [m, n]."""
    return Node("MUL_MAT", "F32", (a.ne[1], b.ne[1], b.ne[2], b.ne[3]), [a, b])


def mul_mat_id(experts: Node, b: Node, ids: Node) -> Node:
    """Product with selected experts: [k, m, experts] × [k, ·, n] by ids [used, n] → f32 [m, used, n]."""
    return Node("MUL_MAT_ID", "F32", (experts.ne[1], ids.ne[0], b.ne[2], 1), [experts, b, ids])


def glu(kind: str, gate: Node, up: Node | None = None) -> Node:
    """Gated activation of two tensors, or of the two halves of one."""
    if up is not None:
        node = Node("GLU", gate.type, gate.ne, [gate, up])
    else:
        node = Node("GLU", gate.type, (gate.ne[0] // 2, *gate.ne[1:]), [gate])
    node.variant = kind
    return node


def get_rows(a: Node, ids: Node) -> Node:
    """Rows of ``a`` by index."""
    return Node("GET_ROWS", "I32" if a.type == "I32" else "F32", (a.ne[0], *ids.ne[:3]), [a, ids])


def set_rows(a: Node, rows: Node, ids: Node) -> Node:
    """Write ``rows`` into ``a``: the result is a view of ``a``."""
    return Node("SET_ROWS", a.type, a.ne, [rows, ids, a], a, a.nb)


def copy_into(a: Node, target: Node) -> Node:
    """Copy ``a`` into ``target``: the result is a view of ``target``."""
    return Node("CPY", target.type, target.ne, [a, target], target, target.nb)


def cast(a: Node, type_name: str) -> Node:
    """Convert to another type (a copy)."""
    return Node("CPY", type_name, a.ne, [a])


def cont(a: Node, *dims: int) -> Node:
    """A packed copy, optionally of another shape."""
    return Node("CONT", a.type, shape(*dims) if dims else a.ne, [a])


def reshape(a: Node, *dims: int) -> Node:
    """Other shape, same memory."""
    return Node("RESHAPE", a.type, shape(*dims), [a], a)


def view(a: Node, dims: tuple[int, ...], nb: tuple[int, ...] = ()) -> Node:
    """A part of ``a``. ``nb``: strides of the dimensions after the first; missing ones follow from the shape."""
    ne = shape(*dims)
    size = block(a.type)[1]
    step = [size, *nb]
    if len(step) < 2:
        step.append(row_bytes(a.type, ne[0]))
    while len(step) < 4:
        step.append(step[-1] * ne[len(step) - 1])
    return Node("VIEW", a.type, ne, [a], a, (step[0], step[1], step[2], step[3]))


def permute(a: Node, *axes: int) -> Node:
    """Move dimension ``i`` to ``axes[i]``."""
    ne, nb = [0] * 4, [0] * 4
    for i, axis in enumerate(axes):
        ne[axis], nb[axis] = a.ne[i], a.nb[i]
    return Node("PERMUTE", a.type, (ne[0], ne[1], ne[2], ne[3]), [a], a, (nb[0], nb[1], nb[2], nb[3]))


def transpose(a: Node) -> Node:
    """Swap the first two dimensions."""
    ne, nb = a.ne, a.nb
    return Node("TRANSPOSE", a.type, (ne[1], ne[0], ne[2], ne[3]), [a], a, (nb[1], nb[0], nb[2], nb[3]))


def top_k(a: Node, k: int) -> Node:
    """Indices of the ``k`` largest of each row: a view of the sorted indices."""
    order = Node("ARGSORT", "I32", a.ne, [a])
    return view(order, (k, *a.ne[1:]), order.nb[1:])


def sum_rows(a: Node) -> Node:
    """One number per row."""
    return Node("SUM_ROWS", a.type, (1, *a.ne[1:]), [a])


def concat(a: Node, b: Node, dim: int) -> Node:
    """Join along ``dim``."""
    ne = list(a.ne)
    ne[dim] += b.ne[dim]
    return Node("CONCAT", a.type, (ne[0], ne[1], ne[2], ne[3]), [a, b])


def repeat(a: Node, *dims: int) -> Node:
    """Broadcast to a shape (a copy)."""
    return Node("REPEAT", a.type, shape(*dims), [a])


def padded(a: Node, *extra: int) -> Node:
    """``a`` grown by ``extra`` elements per dimension."""
    more = shape(*extra) if len(extra) == 4 else (*extra, 0, 0, 0)[:4]
    ne = tuple(n + m for n, m in zip(a.ne, more, strict=True))
    return Node("PAD", a.type, (ne[0], ne[1], ne[2], ne[3]), [a])


def flash_attention(q: Node, k: Node, v: Node, mask: Node | None, sinks: Node | None) -> Node:
    """Fused attention: q [d, n, heads, s], v [dv, cells, kv heads, s] → f32 [dv, heads, n, s]."""
    sources = [n for n in (q, k, v, mask, sinks) if n is not None]
    return Node("FLASH_ATTN_EXT", "F32", (v.ne[0], q.ne[2], q.ne[1], q.ne[3]), sources)
