"""Budgets: sums that add up to the shown numbers, and remedies that really fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.diagnostics import Diagnostic
from labctl.model.lab import frozen
from labctl.placed import PlacedGpu
from labctl.quantity import GIB, MIB
from labctl.resolve.arithmetic import apportion, card_sum, whole
from labctl.resolve.ledger import PROCESS_OVERHEAD, Entry, GpuAccount
from labctl.resolve.models import smaller_quantisations
from labctl.vram.footprint import DeviceBytes
from labctl.workload import Accelerator
from tests.resolve import labs

SIZES = st.integers(0, 40 * GIB)


@given(st.lists(SIZES, min_size=1, max_size=6))
def test_parts_add_up_to_what_is_shown(sizes: list[int]) -> None:
    shown = apportion(sizes, whole(sum(sizes)))
    assert sum(shown) == whole(sum(sizes))
    assert all(abs(s * MIB - size) < MIB for s, size in zip(shown, sizes, strict=True))


ENTRIES = st.lists(
    st.builds(
        Entry,
        server=st.from_regex(r"[a-z]{1,12}", fullmatch=True),
        deployment=st.sampled_from(["x", "y", "z"]),
        bytes=st.builds(DeviceBytes, weights=SIZES, context=SIZES, compute=SIZES, other=SIZES),
        overhead=st.sampled_from([0, 160 * MIB]),
        group=st.sampled_from([None, None, "turns"]),
        declared=st.booleans(),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda e: e.server,
)


@given(ENTRIES, st.integers(0, 4 * GIB))
def test_every_line_of_a_card_adds_up(entries: list[Entry], reserve: int) -> None:
    gpu = PlacedGpu(index=0, model="X", vendor="nvidia", memory=8 * GIB + 12345, reserve=reserve)
    account = GpuAccount(host="h", gpu=gpu, entries=tuple(entries))
    lines = card_sum(account).splitlines()
    numbers = {line[2:].split("  ")[0].strip(): int(_amount(line)) for line in lines}
    terms = [line for line in lines[:-3] if "not counted" not in line]
    assert sum(int(_amount(line)) for line in terms) == numbers["at worst"]
    assert numbers["at worst"] - numbers["the card"] == numbers["over by"]
    assert (numbers["over by"] > 0) >= (not account.fits)
    for line in terms:
        parts = re.findall(r"(?:weights|context|compute|other|process) ([\d,]+)", line)
        if parts:
            assert sum(int(p.replace(",", "")) for p in parts) == int(_amount(line))


def _amount(line: str) -> str:
    match = re.search(r"(-?[\d,]+) MiB", line)
    assert match is not None, line
    return match[1].replace(",", "")


def over(data: dict[str, Any]) -> list[Diagnostic]:
    return [d for d in labs.taken(data).diagnostics if d.code == "LAB061"]


def remedies(problem: Diagnostic) -> list[str]:
    return problem.hint.split("; or ")


def applied(data: dict[str, Any], name: str, remedy: str) -> dict[str, Any]:
    """Return the lab with one remedy of a deployment carried out."""
    deployments, models = dict(data["deployments"]), dict(data["models"])
    if match := re.search(r"in `([^`]+)`: ", remedy):
        name = match[1]
    spec = dict(deployments[name])
    if match := re.search(r"the model as (\S+)", remedy):
        model = models[spec["model"]]["gguf"]
        models["other"] = {"gguf": re.sub(r"Q4_K_M|Q8_0|F16", match[1], model)}
        spec["model"] = "other"
    elif match := re.search(r"move `([^`]+)` to GPU (\d+) .* of host `([^`]+)`", remedy):
        spec["on"] = {"host": match[3], "gpus": (int(match[2]),)}
    else:
        found = re.search(r"`([^`]+: [^`]+)`", remedy)
        assert found is not None, remedy
        spec |= frozen(yaml.safe_load(found[1]))
    deployments[name] = spec
    return {**data, "deployments": deployments, "models": models}


BIG = {"a": labs.box("RTX 3070", "RTX 3090", address="10.0.0.1"), "b": labs.box("P106-100", address="10.0.0.2")}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["f16", "q8_0"]),
    st.integers(1, 140).map(lambda n: n * 1000),
    st.sampled_from([1, 4]),
    st.sampled_from([0, 2]),
    st.sampled_from([0, 1]),
)
def test_every_remedy_fits(kv: str, context: int, slots: int, beside: int, turns: int) -> None:
    chat = labs.llama(context=context, slots=slots, kv_cache=kv, flash_attention="on", on={"host": "a", "gpus": (0,)})
    small = labs.llama(model="nomic", task="embed", context=2048, on={"host": "a", "gpus": (0,), "servers": 2})
    other = labs.llama(context=30_000, on={"host": "a", "gpus": (0,)})
    deployments = {"chat": chat} | ({"small": small} if beside else {}) | ({"other": other} if turns else {})
    groups = {"g": {"exclusive": ("chat", "other")}} if turns else {}
    data = labs.lab(deployments, BIG, groups=groups)
    for problem in over(data):
        for remedy in remedies(problem):
            if not remedy.startswith("no single change"):
                name = str((problem.path or ())[1])
                assert over(applied(data, name, remedy)) == [], remedy


def test_the_remedies_of_one_model_too_many() -> None:
    deployments = {
        "chat": labs.llama(context=16384, slots=2, on={"host": "a", "gpus": (0,)}),
        "embed": labs.llama(model="nomic", task="embed", context=2048, on={"host": "a", "gpus": (0,)}),
        "more": labs.llama(model="nomic", task="embed", context=2048, on={"host": "a", "gpus": (0,), "servers": 5}),
    }
    (problem,) = over(labs.lab(deployments, BIG))
    assert problem.path == ("deployments", "chat")
    words = " ".join(remedies(problem))
    for way in ("`context: ", "`kv_cache: q8_0`", "the model as Q3_K_M", "move `chat` to GPU 1"):
        assert way in words, problem.hint


def test_a_vllm_budget_is_lowered_to_what_is_left() -> None:
    on = {"host": "box", "gpus": (0,)}
    data = labs.lab({"v": {"model": "qwen", "engine": "vllm", "vram": "20 GiB", "on": on}, "chat": labs.llama(on=on)})
    (problem,) = over(data)
    (vram,) = [r for r in remedies(problem) if r.startswith("`vram: ")]
    assert over(applied(data, "v", vram)) == []


def test_equal_cards_are_one_mistake() -> None:
    hosts = {"ash": labs.box(*["P106-100"] * 4)}
    (problem,) = over(labs.lab({"chat": labs.llama(context=32768, on={"host": "ash", "gpus": "all"})}, hosts))
    assert problem.summary.startswith("GPUs 0, 1, 2 and 3 (P106-100) of host `ash` are over budget by ")


def test_a_declared_budget_offers_no_settings() -> None:
    on = {"host": "a", "gpus": (0,)}
    spec = {"engine": "container", "image": "x/y:1", "vram": {"declared": "9 GiB"}, "on": on}
    (problem,) = over(labs.lab({"x": spec}, BIG))
    assert remedies(problem) == ["move `x` to GPU 1 (RTX 3090, 23.6 GiB) of host `a`, where it fits"]


def test_unified_memory_counts_as_ram() -> None:
    hosts = {
        "orin": {
            "target": "systemd",
            "arch": "aarch64",
            "memory": "64 GiB",
            "gpus": ({"model": "Jetson AGX Orin 64GB"},),
        }
    }
    found = labs.placed(labs.lab({"chat": labs.llama(on={"host": "orin", "gpus": "all"})}, hosts))
    (card,), (ram,) = found.ledger.gpus, found.ledger.hosts
    footprint = found.ledger.footprints["chat"]
    assert card.entries[0].overhead == PROCESS_OVERHEAD[Accelerator.CUDA]
    assert ram.used == card.used + footprint.host


def test_reserves_are_left_alone() -> None:
    card = {"model": "RTX 3090", "reserve": "20 GiB"}
    hosts = {"box": {**labs.box(), "gpus": (card,), "reserve": "2 GiB"}}
    found = labs.taken(labs.lab({"chat": labs.llama(on={"host": "box", "gpus": "all"})}, hosts))
    assert found.value is not None
    (problem,) = [d for d in found.diagnostics if d.code == "LAB061"]
    assert "20,480 in reserve" in problem.detail
    assert found.value.ledger.hosts[0].reserve == 2 * GIB


def test_limits_of_services_and_gateway_count() -> None:
    hosts = {"box": labs.box("RTX 3090", memory="8 GiB")}
    data = labs.lab(
        {"chat": labs.llama(on={"host": "box", "gpus": (0,)}, memory_limit="3 GiB")},
        hosts,
        services={"postgres": {"host": "box", "memory_limit": "2 GiB"}},
        gateway={"engine": "litellm", "memory_limit": "3 GiB"},
    )
    (problem,) = [d for d in labs.taken(data).diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB062", ("hosts", "box", "memory"))
    assert [line.split()[:2] for line in problem.detail.splitlines()[:2]] == [["chat", "3,072"], ["+", "gateway"]]


@pytest.mark.parametrize(
    ("gguf", "wanted"),
    [
        ("m-Q5_K_M.gguf", ["Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"]),
        ("m.f16.gguf", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"]),
        ("m-q2_k.gguf", []),
        ("model.gguf", []),
        ("hf://o/m-Q8_0-GGUF/m-Q8_0-00001-of-00002.gguf", ["Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"]),
    ],
)
def test_smaller_quantisations(gguf: str, wanted: list[str]) -> None:
    model = labs.valid(labs.lab({}, models={"m": {"gguf": gguf}})).models["m"]
    assert [name for name, _ in smaller_quantisations(model)] == wanted
