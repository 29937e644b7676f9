"""Ollama's rules over llama.cpp's memory model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.vram.facts import GgufFacts
from labctl.vram.metadata.catalogue import lookup
from labctl.vram.ollama import PROCESS, Model, Settings, estimate, estimate_one, loaded_at_once


def facts_of(source: str) -> GgufFacts:
    known = lookup(source)
    assert known is not None
    assert known.gguf is not None
    return known.gguf


CHAT = Model(name="llama3.1:8b", facts=facts_of("llama3.1:8b"))
SMALL = Model(name="llama3.2:1b", facts=facts_of("llama3.2:1b"))
EMBED = Model(name="nomic-embed-text", facts=facts_of("nomic-embed-text"), context=2048, embeddings=True)


def test_the_largest_models_are_summed() -> None:
    one = Settings(max_loaded=1)
    alone = [estimate([model], one).devices[0].total for model in (CHAT, SMALL, EMBED)]
    assert alone == sorted(alone, reverse=True)
    models = [EMBED, CHAT, SMALL]
    assert estimate(models, one).devices[0].total == alone[0]
    assert estimate(models, replace(one, max_loaded=2)).devices[0].total == alone[0] + alone[1] + PROCESS
    assert estimate(models, Settings()).devices[0].total == sum(alone) + 2 * PROCESS
    assert len(estimate(models, replace(one, max_loaded=2)).steps) == 2


def test_how_many_may_be_loaded() -> None:
    assert loaded_at_once(Settings(), 9) == 3
    assert loaded_at_once(Settings(devices=2), 9) == 6
    assert loaded_at_once(Settings(max_loaded=1, devices=2), 9) == 1
    assert loaded_at_once(Settings(), 2) == 2


def test_context_is_multiplied_by_parallel_requests() -> None:
    one, four = (estimate_one(CHAT, Settings(context=4096, parallel=count), 1).devices[0] for count in (1, 4))
    assert one.context == 512 * 1024**2
    assert four.context == 4 * one.context
    assert four.weights == one.weights


def test_a_quantised_cache_needs_flash_attention() -> None:
    fast = estimate_one(CHAT, Settings(kv_cache="q8_0"), 1).devices[0]
    slow = estimate_one(CHAT, Settings(kv_cache="q8_0", flash_attention=False), 1).devices[0]
    assert fast.context == pytest.approx(slow.context * 34 / 64, rel=0.01)


def test_overhead_is_kept_free_on_every_gpu() -> None:
    plain, kept = (estimate([CHAT], Settings(devices=2, gpu_overhead=count)) for count in (0, 10**9))
    assert [b.total - a.total for a, b in zip(plain.devices, kept.devices, strict=True)] == [10**9, 10**9]


def test_models_go_to_the_emptiest_gpu_and_spread_when_they_must() -> None:
    two = estimate([CHAT, SMALL], Settings(devices=2)).devices
    assert all(device.total > 0 for device in two)
    spread = estimate([CHAT], Settings(devices=2, spread=True)).devices
    assert all(device.weights > 0 for device in spread)
    tight = estimate([CHAT], Settings(devices=2, gpu_bytes=4 * 1024**3)).devices
    assert tight == spread
    whole = estimate([CHAT], Settings(devices=2, gpu_bytes=40 * 1024**3)).devices
    assert whole[1].total == 0
