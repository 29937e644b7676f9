"""The tables themselves: every row complete, sourced, pinned and without contradiction."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from labctl.compat import builds, cpus, gpus, tables
from labctl.compat.capability import parse
from labctl.compat.rules import CpuModel
from labctl.compat.values import Build, GpuFacts

CARDS = gpus.all_gpus()
BUILDS = builds.all_builds()


@pytest.mark.parametrize("gpu", CARDS, ids=lambda g: g.name)
def test_card(gpu: GpuFacts) -> None:
    assert gpu.vendor in {"nvidia", "amd", "intel"}
    assert bool(gpu.capability) == (gpu.vendor == "nvidia")
    assert bool(gpu.gfx) == (gpu.vendor == "amd")
    assert gpu.capability is None or (3, 0) <= parse(gpu.capability) <= (12, 1)
    assert gpu.gfx is None or re.fullmatch(r"gfx[0-9a-f]{3,4}", gpu.gfx)
    assert 900 <= gpu.memory_mib <= 300_000
    assert gpu.memory_basis in {"reported", "derived"}
    assert gpu.tdp_w is None or 5 <= gpu.tdp_w <= 1500
    assert gpu.unified or not gpu.tegra
    assert len(gpu.source) > 10


@pytest.mark.parametrize("gpu", [g for g in CARDS if re.search(r"(\d+)GB", g.name)], ids=lambda g: g.name)
def test_memory_suits_the_name(gpu: GpuFacts) -> None:
    found = re.search(r"(\d+)GB", gpu.name)
    assert found
    assert int(found[1]) * 880 <= gpu.memory_mib <= int(found[1]) * 1024


def test_one_generation_has_one_capability_range() -> None:
    eldest = {"Maxwell": (5, 0), "Pascal": (6, 0), "Volta": (7, 0), "Turing": (7, 5), "Ampere": (8, 0), "Ada": (8, 9)}
    for gpu in CARDS:
        if gpu.capability and gpu.architecture in eldest:
            low = eldest[gpu.architecture]
            assert low <= parse(gpu.capability) < (low[0] + 1, 0), gpu.name


def test_no_name_means_two_cards() -> None:
    names = [n for g in CARDS for n in {re.sub(r"[^a-z0-9+]", "", n.lower()) for n in (g.name, *g.aliases)}]
    assert [n for n, count in Counter(names).items() if count > 1] == []


@pytest.mark.parametrize("build", BUILDS, ids=lambda b: b.id)
def test_build(build: Build) -> None:
    assert len(build.source) > 20
    assert build.accelerator in {"cuda", "rocm", "vulkan", "cpu"}
    assert build.form == ("container" if build.image else "native")
    assert set(build.arch) <= {"x86_64", "aarch64"}
    assert set(build.cpu_features) <= set(cpus.features())
    assert builds.kv_rule(build.kv).source
    for capability in (*build.sass, *build.ptx):
        parse(capability)
    needs = {"cuda": build.sass or build.for_host, "rocm": build.gfx, "vulkan": build.vendors, "cpu": True}
    assert needs[build.accelerator]
    assert build.accelerator != "cuda" or build.cuda or build.for_host


@pytest.mark.parametrize("build", [b for b in BUILDS if b.image], ids=lambda b: b.id)
def test_images_are_pinned_and_recognised(build: Build) -> None:
    assert build.image
    tag = build.image.rpartition(":")[2]
    assert build.version in tag
    assert not re.search(r"latest|stable|main|nightly", tag)
    found = builds.of_image(f"{build.image}@sha256:{'0' * 64}")
    assert found is not None
    assert found.engine == build.engine
    assert found.version == build.version
    assert not build.match or re.match(build.match, build.image)


def test_identities_are_unique() -> None:
    assert max(Counter(b.id for b in BUILDS).values()) == 1
    assert max(Counter((b.engine, b.flavour) for b in BUILDS).values()) == 1


def test_patterns_do_not_overlap() -> None:
    for build in BUILDS:
        claiming = [b.id for b in BUILDS if b.match and build.image and re.match(b.match, build.image)]
        assert len(claiming) <= 1, (build.image, claiming)


def test_flash_attention_rules_and_formats_name_known_engines() -> None:
    engines = set(builds.engines())
    assert {r.engine for r in builds.flash_rules()} <= engines
    assert {r.engine for r in builds.setting_rules()} <= engines
    assert {r.engine for r in builds.format_rules()} <= engines


@pytest.mark.parametrize("key", sorted(tables.toml("builds.toml")) + sorted(tables.toml("cpus.toml")))
def test_every_rule_has_a_source(key: str) -> None:
    file = "builds.toml" if key in tables.toml("builds.toml") else "cpus.toml"
    for values in tables.toml(file)[key]:
        assert len(values.get("source", "")) > 5, values


def test_no_format_name_stands_in_two_rules() -> None:
    names = Counter((r.engine, r.kind, n) for r in builds.format_rules() for n in r.names)
    assert max(names.values()) == 1


def test_toolkits_come_newest_first() -> None:
    versions = [parse(t.cuda) for t in builds.toolkits()]
    assert versions == sorted(versions, reverse=True)


def test_processors() -> None:
    assert cpus.of_model("Intel(R) Celeron(R) CPU G3930 @ 2.90GHz") == frozenset({"sse42"})
    assert cpus.of_model("Intel(R) N100") == frozenset({"sse42", "avx", "f16c", "fma", "bmi2", "avx2"})
    assert cpus.of_model("AMD Ryzen AI MAX+ 395 w/ Radeon 8060S") == cpus.closure({"avx2", "fma", "f16c", "bmi2"})
    assert cpus.of_model("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz") == frozenset({"sse42", "avx"})
    assert cpus.of_model("Frobnicator 9000") is None
    for model in tables.rows(CpuModel, "cpus.toml", "cpu"):
        assert set(model.features) <= set(cpus.features())
        assert model.source


def test_instruction_sets() -> None:
    assert cpus.closure({"avx2"}) == {"avx2", "avx", "sse42"}
    assert cpus.missing(("avx", "avx2", "fma"), {"avx2"}) == ("fma",)
    assert cpus.missing((), ()) == ()
    options = cpus.ggml_options({"avx"})
    assert options[0] == "-DGGML_NATIVE=OFF"
    assert "-DGGML_AVX=ON" in options
    assert "-DGGML_AVX2=OFF" in options
    assert all(o.endswith(("=ON", "=OFF")) for o in options)


def test_a_column_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        tables.row(CpuModel, {"like": "x", "features": [], "source": "y", "colour": "red"})
