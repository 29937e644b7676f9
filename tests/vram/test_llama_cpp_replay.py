"""The allocator and scheduler replays on graphs small enough to check by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labctl.vram.llama_cpp.alloc import ENDLESS, Buffer
from labctl.vram.llama_cpp.backends import Machine
from labctl.vram.llama_cpp.builds import CHANGES, EARLY_2025, rules_of
from labctl.vram.llama_cpp.graph import Graph, Node, graph_input, leaf, like, mul_mat, permute, reshape, unary, view
from labctl.vram.llama_cpp.quants import BLOCKS, pad, row_bytes, row_padding_bytes
from labctl.vram.llama_cpp.scheduler import reserve

NOW = rules_of("b11549")
KIB = 1024


def weight(rows: int, columns: int, home: int, kind: str = "F32") -> Node:
    node = leaf(kind, columns, rows)
    node.home, node.weight = home, True
    return node


def test_best_fit_takes_the_smallest_block_that_is_large_enough() -> None:
    buffer = Buffer()
    places = [buffer.take(size) for size in (256, 128, 512, 128, 1024)]
    assert places == [0, 256, 384, 896, 1024]
    buffer.give(places[0], 256)
    buffer.give(places[2], 512)
    assert buffer.take(200) == 0
    assert buffer.take(384) == 384
    assert buffer.top == 2048


def test_freed_neighbours_merge() -> None:
    buffer = Buffer()
    a, b, c = (buffer.take(128) for _ in range(3))
    buffer.give(a, 128)
    buffer.give(c, 128)
    buffer.give(b, 128)
    assert buffer.free_offsets == [0]
    assert buffer.free_sizes == [ENDLESS]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_blocks_never_overlap(sizes: list[int]) -> None:
    buffer = Buffer()
    held: list[tuple[int, int]] = []
    for i, size in enumerate(sizes):
        if held and i % 3 == 2:
            offset, length = held.pop(i % len(held))
            buffer.give(offset, length)
        offset = buffer.take(size * 128)
        assert all(offset + size * 128 <= o or o + n <= offset for o, n in held)
        held.append((offset, size * 128))
    for offset, length in held:
        buffer.give(offset, length)
    assert buffer.free_offsets == [0]


def chain(home: int, batch: int) -> Graph:
    graph = Graph()
    x = graph_input("F32", 256, batch)
    y = mul_mat(weight(256, 256, home), x)
    graph.expand(unary(y, "silu"))
    return graph


def test_element_wise_results_overwrite_their_operand() -> None:
    gpu, host = reserve(chain(0, 64), Machine(1, NOW))
    assert gpu == 2 * 256 * 64 * 4  # the input's copy and one result
    assert host == 256 * 64 * 4  # the input


def test_large_batches_copy_host_weights_to_the_gpu() -> None:
    gpu, _ = reserve(chain(1, 64), Machine(1, NOW))
    assert gpu >= 256 * 256 * 4


def test_small_batches_stay_on_the_host() -> None:
    gpu, host = reserve(chain(1, 8), Machine(1, NOW))
    assert gpu == 0
    assert host == 2 * 256 * 8 * 4


def test_no_op_offload() -> None:
    gpu, _ = reserve(chain(1, 64), Machine(1, NOW, op_offload=False))
    assert gpu == 0


def test_pipelining_keeps_four_copies_of_inputs() -> None:
    once, _ = reserve(chain(0, 64), Machine(1, NOW))
    gpu, host = reserve(chain(0, 64), Machine(1, NOW), pipeline=True)
    assert gpu == once + 3 * 256 * 64 * 4
    assert host == 4 * 256 * 64 * 4


def test_operations_without_a_kernel_run_on_the_host() -> None:
    graph = Graph()
    y = mul_mat(weight(256, 256, 1, "TQ1_0"), graph_input("F32", 256, 64))
    graph.expand(y)
    assert reserve(graph, Machine(1, NOW))[0] == 0


def test_views() -> None:
    x = leaf("F32", 8, 4, 2)
    assert view(reshape(x, 16, 4), (8, 4)).view is x
    turned = permute(x, 0, 2, 1, 3)
    assert turned.ne == (8, 2, 4, 1)
    assert not turned.contiguous()
    assert like("CONT", turned).contiguous()
    assert turned.bytes() == x.bytes() == 256


def test_sources_come_first_and_once() -> None:
    graph = Graph()
    x = graph_input("F32", 4)
    a, b = unary(x, "silu"), unary(x, "tanh")
    total = like("ADD", a, b)
    graph.expand(total)
    graph.expand(total)
    assert graph.nodes == [a, b, total]
    assert graph.leafs == [x]


@given(st.sampled_from(sorted(BLOCKS)), st.integers(1, 64))
def test_rows_are_padded_to_512_elements(kind: str, blocks: int) -> None:
    per, _ = BLOCKS[kind]
    row = per * blocks
    padding = row_padding_bytes(kind, row)
    assert row_bytes(kind, row) + padding == (row_bytes(kind, row) if per == 1 else row_bytes(kind, pad(row, 512)))


def test_rules_change_where_the_table_says() -> None:
    for build, rule, source in CHANGES:
        assert getattr(rules_of(f"b{build}"), rule)
        assert not getattr(rules_of(f"b{build - 1}"), rule)
        assert source
    assert rules_of("c392e50") == rules_of("b4700") == EARLY_2025
