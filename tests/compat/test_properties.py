"""What holds for every question that the gate can be asked."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from labctl.compat import Ask, OwnBuild, builds, cpus, gate, gpus
from labctl.compat.values import Build

TYPES = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "auto", "fp8", "nonsense")
FEATURES = st.frozensets(st.sampled_from(sorted(cpus.features())))
DRIVERS = ("470.256.02", "525.60.13", "550.90", "570.124.06", "575.57.08", "580.65.06", "595.78")
IMAGES = (*(b.image for b in builds.all_builds() if b.image), "registry.lan/mine:1", "vllm/vllm-openai:v0.14.1")

own_builds = st.builds(
    OwnBuild,
    version=st.sampled_from((None, "b2700", "b2800", "b11549")),
    cuda=st.sampled_from((None, "11.8", "12.4", "12.8.1", "13.0.2")),
    capabilities=st.sampled_from(((), ("6.1",), ("8.6", "12.0"))),
    cpu_features=st.none() | FEATURES,
    all_kv_quants=st.booleans(),
)
asks = st.builds(
    Ask,
    engine=st.sampled_from((*builds.engines(), "litellm", "postgres", "stable-diffusion")),
    gpus=st.lists(st.sampled_from(gpus.all_gpus()), max_size=3).map(tuple),
    arch=st.sampled_from(("x86_64", "aarch64")),
    cpu_features=st.none() | FEATURES,
    form=st.sampled_from((None, "container", "native")),
    flavour=st.sampled_from((None, None, *sorted({b.flavour for b in builds.all_builds()}), "nonsense")),
    version=st.sampled_from((None, None, "b11549", "0.31.0", "0.9.2", "nonsense")),
    image=st.sampled_from((None, None, *IMAGES)),
    build=st.none() | own_builds,
    driver=st.sampled_from((None, *DRIVERS)),
    kv_cache=st.tuples(st.sampled_from(TYPES), st.sampled_from(TYPES)),
    flash_attention=st.sampled_from(("on", "off", "auto")),
    dtype=st.sampled_from((None, "auto", "half", "bfloat16", "nonsense")),
    quantization=st.sampled_from((None, "fp8", "awq", "gptq", "mxfp4", "nvfp4", "nonsense")),
    attention_backend=st.sampled_from((None, "FLASH_ATTN", "FLASHINFER", "NONSENSE")),
)
plain = st.builds(
    Ask,
    engine=st.sampled_from(builds.engines()),
    gpus=st.lists(st.sampled_from(gpus.all_gpus()), max_size=2).map(tuple),
    cpu_features=FEATURES,
    form=st.sampled_from((None, "container", "native")),
    driver=st.sampled_from(DRIVERS),
)


@given(asks)
def test_every_question_has_an_answer(ask: Ask) -> None:
    """A verdict always says something that a person can act on, and the same thing twice."""
    verdict = gate(ask)
    assert verdict == gate(ask)
    for problem in verdict.problems:
        assert "LAB070" <= problem.code <= "LAB078"
        assert problem.key
        assert not problem.summary.endswith(".")
        assert problem.hint, problem
        assert "None" not in f"{problem.summary}{problem.detail}{problem.hint}", problem
    assert verdict.build is not None or verdict.problems or verdict.notes


@given(plain, st.sampled_from(DRIVERS))
def test_a_newer_driver_takes_nothing_away(ask: Ask, other: str) -> None:
    if gate(ask).fits and DRIVERS.index(other) > DRIVERS.index(ask.driver or ""):
        assert gate(replace(ask, driver=other)).fits


@given(plain, FEATURES)
def test_a_better_cpu_takes_nothing_away(ask: Ask, more: frozenset[str]) -> None:
    if gate(ask).fits:
        assert gate(replace(ask, cpu_features=(ask.cpu_features or frozenset()) | more)).fits


@given(plain)
def test_a_card_more_never_helps(ask: Ask) -> None:
    for gpu in ask.gpus:
        if gate(ask).fits:
            assert gate(replace(ask, gpus=(gpu,))).fits


@given(plain)
def test_what_is_chosen_is_of_the_engine_and_the_form(ask: Ask) -> None:
    build: Build | None = gate(ask).build
    if build is not None:
        assert build.engine == ask.engine
        assert ask.form in {None, build.form}
