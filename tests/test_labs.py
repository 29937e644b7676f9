"""The five labs' budgets against what was measured or stated of them (../shared/labs)."""

from __future__ import annotations

from functools import cache

import pytest

from labctl.estimate import max_context
from labctl.quantity import GIB, MIB
from labctl.resolve.lab import PlacedLab
from labctl.resolve.ledger import GpuAccount
from labctl.vram.footprint import Footprint
from tests.examples import labs as examples
from tests.resolve import labs

GB = 10**9


@cache
def example(name: str) -> PlacedLab:
    return examples.example(name).need_placed()


def card(name: str, host: str, index: int = 0) -> GpuAccount:
    return next(a for a in example(name).ledger.gpus if (a.host, a.gpu.index) == (host, index))


def footprint(name: str, server: str) -> Footprint:
    return example(name).ledger.footprints[server]


@pytest.mark.parametrize("name", examples.NAMES)
def test_every_lab_fits(name: str) -> None:
    assert example(name).ledger.fits
    assert example(name).ledger.unknown == ()


def test_p106_farm_as_measured_on_cards_of_8_gb() -> None:
    """Measured: Q5_K_M ~5.7 GB + ~1 GB KV (16k, q8_0) + ~0.35 GB embedding server + ~0.55 GB overhead = 7.6 GB.

    5.7 GB is the file: llama.cpp leaves its token embeddings (128,256 x 4,096 at 5.5 bits, 0.36 GB) in RAM. The figures
    are rounded to 0.1 GB and their "overhead" is compute and contexts, so the parts are held to 0.15 GB and the sum,
    with the embeddings that it counts, to 0.25 GB.
    """
    gguf = labs.LLAMA.replace("Q4_K_M", "Q5_K_M")
    on = {"host": "box", "gpus": (0,)}
    batch = {"logical": 128, "physical": 64}
    deployments = {
        "chat": labs.llama(context=16384, slots=2, kv_cache="q8_0", flash_attention="on", batch=batch, on=on),
        "embed": labs.llama(model="nomic", task="embed", context=2048, on=on),
    }
    models = {**labs.MODELS, "llama": {"gguf": gguf}}
    ledger = labs.placed(labs.lab(deployments, {"box": labs.box("RTX 3070")}, models=models)).ledger
    (chat,) = ledger.footprints["chat"].devices
    assert chat.weights == pytest.approx((5.7 - 0.36) * GB, abs=0.15 * GB)
    assert chat.context == pytest.approx(1.0 * GB, abs=0.15 * GB)
    embed = next(e for e in ledger.gpus[0].entries if e.server == "embed")
    assert embed.total == pytest.approx(0.35 * GB, abs=0.15 * GB)
    assert ledger.gpus[0].used + 0.36 * GB == pytest.approx(7.6 * GB, abs=0.25 * GB)


def test_p106_farm_leaves_room_on_every_card_but_not_for_a_second_chat() -> None:
    """Known to run: a chat server of 8k at Q4_K_M and an embedding server on each 6 GB card."""
    cards = [card("p106-farm", "ash", i) for i in range(8)]
    assert {len(c.entries) for c in cards} == {2}
    assert all(0.3 * GIB < c.free < 1.0 * GIB for c in cards)


SIZES = {
    "gpt-oss-120b": 63,
    "qwen3-coder-30b": 19,
    "dolphin-mistral-24b": 19.67,
    "dolphin-mistral-24b-fast": 14,
    "qwen3-30b-thinking": 32.5,
    "qwen3-30b-instruct": 32.5,
    "gpt-oss-20b": 12.1,
    "gpt-oss-20b-neoplus": 22.1,
    "gpt-oss-20b-code-di": 22.1,
    "huihui-qwen3-vl-30b": 33.6,
    "jamba-reasoning-3b": 6.4,
    "lfm2-8b-a1b": 8.87,
}
"""File sizes in GB, as the lab's table has them."""


@pytest.mark.parametrize("name", SIZES)
def test_swap_box_weights_are_its_files(name: str) -> None:
    """All layers are on the card; the embedding table may stay behind, and the table rounds to whole GB in places."""
    (device,) = footprint("swap-box", name).devices
    assert device.weights / GB == pytest.approx(SIZES[name], rel=0.06)


def test_swap_box_models_take_turns() -> None:
    account = card("swap-box", "halo")
    assert len(account.entries) == 12
    assert account.used == max(e.total for e in account.entries)
    assert sum(e.total for e in account.entries) > account.gpu.memory


def test_two_machine_budgets_are_the_stated_ones() -> None:
    """15 GB and 4 GB are what vLLM may allocate; its process is beside it."""
    entries = {e.server: e for e in card("two-machine-vllm", "machine-a").entries}
    for server, budget in (("completions", 15 * GB), ("ocr", 4 * GB)):
        assert entries[server].bytes.total == pytest.approx(budget, rel=0.01)
        assert entries[server].bytes.total <= budget
        assert 0 < entries[server].overhead < GIB
    assert card("two-machine-vllm", "machine-a").gpu.memory == 32105 * MIB


def test_jetson_projectors_count() -> None:
    """The text models of both are Q4_K_M of 7 and 8 billion: about 4.4 and 4.7 GB; their projectors come on top."""
    assert footprint("jetson", "qwen-vl").devices[0].weights > footprint("jetson", "qwen").devices[0].weights + GIB
    steps = {step.label for step in footprint("jetson", "qwen-vl").steps}
    assert any("projector" in label for label in steps)
    assert footprint("jetson", "minicpm-v").devices[0].weights > 5 * GIB


def test_jetson_shares_its_ram() -> None:
    (ram,) = example("jetson").ledger.hosts
    assert ram.used >= card("jetson", "orin").used


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_the_largest_context_fits_and_one_more_does_not(kv: str) -> None:
    def lab(context: int) -> dict[str, object]:
        on = {"host": "box", "gpus": (0,)}
        chat = labs.llama(context=context, kv_cache=kv, flash_attention="on", on=on)
        embed = labs.llama(model="nomic", task="embed", context=2048, on=on)
        return labs.lab({"chat": chat, "embed": embed}, {"box": labs.box("RTX 3070")})

    (answer,) = max_context(labs.placed(lab(1024)), "chat")
    assert answer.largest is not None
    assert answer.largest < (answer.trained or 0)
    assert labs.taken(lab(answer.largest)).ok
    assert labs.codes(labs.taken(lab(answer.largest + 256))) == ["LAB061"]


def test_a_member_of_a_group_may_grow_until_it_is_the_largest() -> None:
    """Its neighbours are not there when it runs: what counts is the card."""
    (answer,) = max_context(example("swap-box"), "qwen3-coder-30b")
    assert answer.largest == answer.trained == 262144


def test_an_own_build_is_of_the_release_it_names() -> None:
    placed = example("p106-farm")
    wanted = placed.lab.deployments["chat-sfw"].build
    assert wanted is not None
    versions = {s.runtime.version for s in placed.servers if s.deployment == "chat-sfw"}
    assert versions == {wanted.version}
