"""The gate's answers, case by case, and what holds for every card."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from labctl.compat import Ask, GpuFacts, OwnBuild, Verdict, alternatives, builds, gate, gpus

CASES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))["case"]
SETS = {"cpu_features": frozenset, "kv_cache": tuple, "capabilities": tuple}


def card(name: str) -> GpuFacts:
    found = gpus.find(name)
    assert found is not None, name
    return found


def ask(case: dict[str, Any]) -> Ask:
    build = OwnBuild(**_typed(case["build"])) if "build" in case else None
    return Ask(gpus=tuple(card(n) for n in case.get("cards", ())), build=build, **_typed(case["ask"]))


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    return {k: SETS[k](v) if k in SETS else v for k, v in values.items()}


def spoken(verdict: Verdict) -> str:
    return "\n".join(f"{p.summary}\n{p.detail}\n{p.hint}" for p in verdict.problems)


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_case(case: dict[str, Any]) -> None:
    verdict = gate(ask(case))
    assert [f"{p.code}:{p.key}" for p in verdict.problems] == case.get("codes", []), spoken(verdict)
    for words in case.get("says", ()):
        assert words in spoken(verdict)
    for words in case.get("notes", ()):
        assert any(words in note for note in verdict.notes), verdict.notes
    for key in ("settings", "env"):
        if key in case:
            assert dict(getattr(verdict, key)) == case[key]
    for key in ("flavour", "image"):
        if key in case:
            assert verdict.build is not None
            assert getattr(verdict.build, key) == case[key]
    if "accelerator" in case:
        assert verdict.accelerator == case["accelerator"]


def test_cases_have_different_names() -> None:
    names = [c["name"] for c in CASES]
    assert len(set(names)) == len(names)


def test_every_code_of_the_gate_has_a_case() -> None:
    coded = {code.partition(":")[0] for c in CASES for code in c.get("codes", ())}
    assert coded | {"LAB075"} == {f"LAB{n:03}" for n in range(70, 79)}


@pytest.mark.parametrize("gpu", gpus.all_gpus(), ids=lambda g: g.name)
def test_a_refusal_names_engines_that_really_fit(gpu: GpuFacts) -> None:
    for engine in builds.engines():
        question = Ask(engine=engine, gpus=(gpu,), arch="aarch64" if gpu.tegra else "x86_64")
        verdict = gate(question)
        for problem in verdict.problems:
            assert problem.code == "LAB070"
            assert problem.hint
            for other in alternatives(question):
                again = gate(Ask(engine=other.engine, gpus=(gpu,), arch=question.arch))
                assert again.fits
                assert f"engine: {other.engine}" in problem.hint
        assert verdict.fits or verdict.build is not None


@pytest.mark.parametrize("gpu", gpus.all_gpus(), ids=lambda g: g.name)
def test_what_the_gate_chooses_can_be_pinned(gpu: GpuFacts) -> None:
    """The flavour or image that it picks by itself is accepted when the lab writes it down."""
    for engine in builds.engines():
        question = Ask(engine=engine, gpus=(gpu,), arch="aarch64" if gpu.tegra else "x86_64")
        verdict = gate(question)
        if verdict.fits and verdict.build:
            pinned = gate(Ask(engine=engine, gpus=(gpu,), arch=question.arch, flavour=verdict.build.flavour))
            assert pinned == verdict


def test_a_refusal_speaks_only_of_builds_for_such_cards() -> None:
    nvidia = gate(Ask(engine="vllm", gpus=(card("GTX 1070 Ti"),)))
    assert "gfx" not in spoken(nvidia)
    amd = gate(Ask(engine="vllm", gpus=(card("RX 6600"),)))
    assert "gfx1100" in spoken(amd)
    assert "CUDA" not in spoken(amd)


def test_tables_are_read_when_first_asked_and_once() -> None:
    script = """
import labctl.compat as c
from labctl.compat import tables
assert tables.text.cache_info().misses == 0, "importing reads a table"
c.gate(c.Ask(engine="vllm", gpus=(c.gpus.find("P106-100"),)))
assert tables.text.cache_info().misses == 2, "cards and builds, nothing else"
for card in ("RTX 5090", "Strix Halo", "P106-100"):
    own = c.OwnBuild(cuda="13.0")
    c.gate(c.Ask(engine="llama.cpp", gpus=(c.gpus.find(card),), cpu_features=frozenset(), build=own))
assert tables.text.cache_info().misses == 3, "the instruction sets too, and each table once"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
