"""The table of ``vram-budget``: its numbers add up, nothing is wider than 100 columns."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from labctl.placed import PlacedGpu
from labctl.quantity import GIB, MIB
from labctl.resolve.ledger import Entry, GpuAccount, HostAccount, HostEntry, Ledger
from labctl.views.budget import BAR, bar, budget_text
from labctl.views.budget_data import budget_json
from labctl.vram.footprint import DeviceBytes
from tests.examples import labs

SIZES = st.integers(0, 20 * GIB)
ENTRIES = st.lists(
    st.builds(
        Entry,
        server=st.from_regex(r"[a-z]{1,60}", fullmatch=True),
        deployment=st.sampled_from(["x", "y", "z"]),
        bytes=st.builds(DeviceBytes, weights=SIZES, context=SIZES, compute=SIZES, other=SIZES),
        overhead=st.sampled_from([0, 160 * MIB]),
        group=st.sampled_from([None, None, "turns"]),
        declared=st.booleans(),
        exact=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda e: e.server,
)


@pytest.mark.parametrize("name", labs.NAMES)
def test_examples_fit_into_100_columns(name: str) -> None:
    text = budget_text(labs.example(name).need_placed().ledger)
    assert max(map(len, text.splitlines())) <= 100


def entry(server: str, deployment: str, *mib: int, **facts: Any) -> Entry:
    weights, context, compute = (m * MIB for m in (*mib, 0, 0)[:3])
    sizes = DeviceBytes(weights=weights, context=context, compute=compute)
    return Entry(server=server, deployment=deployment, bytes=sizes, **{"overhead": 160 * MIB, **facts})


def gpu(index: int, memory: int, model: str = "RTX 3090", **facts: Any) -> PlacedGpu:
    return PlacedGpu(index=index, model=model, vendor="nvidia", memory=memory * MIB, **facts)


LONG = "a-deployment-with-a-name-that-is-longer-than-its-column"


def test_everything_at_once(snapshot: SnapshotAssertion) -> None:
    pair = [
        GpuAccount(host="ash", gpu=gpu(i, 6051, "P106-100"), entries=(entry(f"chat-gpu{i}", "chat", 4403, 544, 37),))
        for i in (0, 1)
    ]
    turns = (
        entry("big", "big", 14000, 6000, 300, group="swap"),
        entry("small", "small", 7000, 500, 100, group="swap", exact=False),
        entry(LONG, LONG, 1000, 100, 10),
        entry("odd", "odd", 2048, declared=True, overhead=0),
    )
    shared = GpuAccount(host="ash", gpu=gpu(2, 24121, reserve=1000 * MIB), entries=turns)
    empty = GpuAccount(host="far", gpu=gpu(0, 7819, "RTX 3070"), entries=())
    chats = tuple(HostEntry(server=f"chat-gpu{i}", deployment="chat", total=3 * GIB, limited=True) for i in (0, 1))
    big = HostEntry(server="big", deployment="big", total=9 * GIB + 1, limited=False, group="swap")
    hosts = (
        HostAccount(host="ash", memory=32 * GIB, reserve=GIB, entries=(*chats, big)),
        HostAccount(host="far", memory=None, reserve=GIB, entries=()),
    )
    ledger = Ledger(gpus=(*pair, shared, empty), hosts=hosts, footprints={}, unknown=("mystery",))
    assert budget_text(ledger) == snapshot


def one(entries: list[Entry], reserve: int = 0) -> GpuAccount:
    gpu = PlacedGpu(index=0, model="RTX 3090", vendor="nvidia", memory=24 * GIB, reserve=reserve)
    return GpuAccount(host="box", gpu=gpu, entries=tuple(entries))


def numbers(text: str) -> list[int]:
    return [int(n.replace(",", "")) for n in re.findall(r"(?<![\w.-])\d[\d,]*(?![\w.])", text)]


@given(ENTRIES, st.integers(0, 2 * GIB))
def test_columns_add_up(entries: list[Entry], reserve: int) -> None:
    account = one(entries, reserve)
    ledger = Ledger(
        gpus=(account,), hosts=(HostAccount(host="box", memory=None, reserve=0, entries=()),), footprints={}
    )
    lines = budget_text(ledger).splitlines()
    (end,) = [i for i, line in enumerate(lines) if "▕" in line]
    rows = [line for line in lines[2:end] if numbers(line[38:])]
    assert len(rows) == len(entries)
    for row in rows:
        total, *parts = numbers(row[38:])
        assert not parts or sum(parts) == total
    used = numbers(lines[end].rpartition("▏")[2])[0]
    shaded = [
        numbers(row[38:])[0] for i, row in enumerate(lines[2:end]) if numbers(row[38:]) and _shaded(lines[2:end], i)
    ]
    assert sum(shaded) == used
    assert max(map(len, lines)) <= 100


def _shaded(rows: list[str], i: int) -> bool:
    """Whether a row, or the name that stands on a line of its own above it, has a shade."""
    own = rows[i][4] != " "
    return own or (i > 0 and not numbers(rows[i - 1][38:]) and rows[i - 1][4] != " " and not rows[i][6:38].strip())


@given(ENTRIES, st.integers(0, 2 * GIB))
def test_a_bar_has_a_cell_for_everything_that_counts(entries: list[Entry], reserve: int) -> None:
    cells = bar(one(entries, reserve))
    assert len(cells) == BAR
    if one(entries, reserve).fits and reserve:
        assert "-" in cells


def test_json_says_all_sizes_in_bytes() -> None:
    placed = labs.example("p106-farm").need_placed()
    value = budget_json(placed)
    assert value["fits"] is True
    assert len(value["gpus"]) == 10
    for gpu in value["gpus"]:
        assert gpu["used_bytes"] + gpu["reserve_bytes"] + gpu["free_bytes"] == gpu["capacity_bytes"]
    (chat,) = [d for d in value["deployments"] if d["replica"] == "chat-sfw-gpu0"]
    (device,) = chat["devices"]
    parts = ("weights_bytes", "context_bytes", "compute_bytes", "other_bytes")
    assert sum(device[p] for p in parts) == device["total_bytes"]
    assert (device["host"], device["gpu"]) == ("ash", 0)
    assert chat["host_bytes"] > 0
