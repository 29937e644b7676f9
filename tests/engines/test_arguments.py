"""Command lines: llama-server's are read back with its own flags, vLLM's are a table of its own options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.embedded.llama_flags import FlagError, read_flags
from labctl.engines.vllm import utilization
from labctl.workload import Container, Native, SecretText, Workload
from tests.resolve import labs

CACHES = st.sampled_from(["f16", "q8_0", "q4_0"])
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "context": st.integers(4, 1 << 18),
        "slots": st.integers(1, 4),
        "kv_cache": CACHES | st.builds(lambda k: {"k": k, "v": k}, CACHES),
        "batch": st.just({"logical": 128, "physical": 64}),
        "flash_attention": st.just("on"),
        "gpu_layers": st.integers(0, 99) | st.just("all"),
        "threads": st.integers(1, 64),
        "cache_reuse": st.integers(0, 512),
        "unified_kv": st.booleans(),
        "swa_full": st.booleans(),
        "mlock": st.booleans(),
        "mmap": st.booleans(),
        "pooling": st.sampled_from(["none", "mean", "cls", "last", "rank"]),
        "moe_on_cpu": st.integers(0, 8),
        "task": st.sampled_from(["chat", "complete", "embed", "rerank"]),
        "chat_template": st.sampled_from(["llama3", "chatml"]),
        "reasoning": st.sampled_from(["auto", "none", "deepseek"]),
    },
)


def workload(spec: dict[str, Any], *gpus: str) -> Workload:
    on = {"host": "box", "gpus": tuple(range(len(gpus))) or "none", "gpus_per_server": max(1, len(gpus))}
    found = labs.rendered(labs.lab({"one": {**spec, "on": on}}, {"box": labs.box(*gpus)}))
    (one,) = [w for w in found.workloads if w.name == "one"]
    return one


@settings(max_examples=20, deadline=None)
@given(SETTINGS)
def test_llama_server_reads_every_argument(keys: dict[str, Any]) -> None:
    spec = labs.llama(**{"flash_attention": "on", **keys})
    one = workload(spec, "RTX PRO 6000")
    container, native = one.forms
    assert isinstance(container, Container)
    assert isinstance(native, Native)
    assert container.locked_memory is native.locked_memory is bool(spec.get("mlock"))
    seen, _ = read_flags(container.args)
    assert seen["n_ctx"] == spec.get("context", 4096)
    assert seen["n_parallel"] == spec.get("slots", 1)
    assert (seen["hostnames"], seen["port"]) == (["0.0.0.0"], 8080)  # noqa: S104
    inside, _ = read_flags(native.args)
    assert inside["port"] == one.ports[0].published
    assert {k: v for k, v in seen.items() if k not in {"port", "hostnames", "model.path"}} == {
        k: v for k, v in inside.items() if k not in {"port", "hostnames", "model.path"}
    }


def test_the_reader_refuses_what_llama_server_does_not_know() -> None:
    with pytest.raises(FlagError):
        read_flags(("-m", "x.gguf", "--no-such-flag"))


def option(args: tuple[str, ...], name: str) -> str:
    return args[args.index(name) + 1]


def test_a_model_over_two_cards() -> None:
    one = workload(labs.llama(tensor_split=(3, 1)), "RTX 3090", "RTX 3090")
    form = one.forms[0]
    assert option(form.args, "--split-mode") == "layer"
    assert option(form.args, "--tensor-split") == "3,1"
    assert one.gpu is not None
    assert len(one.gpu.devices) == len(one.gpu.budget) == 2


def test_on_the_cpu_nothing_is_offloaded() -> None:
    one = workload(labs.llama())
    assert option(one.forms[0].args, "--gpu-layers") == "0"
    assert one.gpu is None


VLLM = {"model": "qwen", "engine": "vllm", "vram": "16 GiB"}


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"context": 8192}, ("--max-model-len", "8192")),
        ({"sequences": 32}, ("--max-num-seqs", "32")),
        ({"batched_tokens": 4096}, ("--max-num-batched-tokens", "4096")),
        ({"dtype": "half"}, ("--dtype", "half")),
        ({"quantization": "fp8"}, ("--quantization", "fp8")),
        ({"eager": True}, ("--enforce-eager",)),
        ({"prefix_caching": False}, ("--no-enable-prefix-caching",)),
        ({"trust_remote_code": True}, ("--trust-remote-code",)),
        ({"tool_parser": "hermes"}, ("--tool-call-parser", "hermes")),
        ({"tool_parser": "hermes"}, ("--enable-auto-tool-choice",)),
        ({"reasoning_parser": "qwen3"}, ("--reasoning-parser", "qwen3")),
        ({"task": "embed"}, ("--runner", "pooling")),
        ({"serves": ("a", "b")}, ("--served-model-name", "a", "b")),
        ({}, ("--gpu-memory-utilization", "0.6792")),
    ],
    ids=str,
)
def test_vllm_arguments(keys: dict[str, Any], wanted: tuple[str, ...]) -> None:
    """The names are those of ``vllm serve`` 0.11 and later (../shared/facts/engines.md)."""
    args = workload({**VLLM, **keys}, "RTX 3090").forms[0].args
    start = args.index(wanted[0])
    assert args[start : start + len(wanted)] == wanted
    assert "--task" not in args


def test_images_are_limited_as_json() -> None:
    args = workload({**VLLM, "images_per_prompt": 4}, "RTX 3090").forms[0].args
    assert json.loads(option(args, "--limit-mm-per-prompt"))["image"] == 4


def test_tensor_parallel() -> None:
    one = workload({**VLLM, "context": 8192}, "RTX 3090", "RTX 3090")
    assert option(one.forms[0].args, "--tensor-parallel-size") == "2"


@given(st.integers(1, 1 << 38), st.integers(1 << 30, 1 << 38))
def test_a_utilization_is_never_more_than_the_budget(budget: int, total: int) -> None:
    text = utilization(budget, total)
    assert float(text) * total <= budget + 1
    assert (budget / total) - float(text) < 0.0001 + 1e-12
    assert len(text.partition(".")[2]) == 4


def test_a_budget_below_what_starts_is_one_problem_with_the_least_that_does() -> None:
    spec = {**VLLM, "vram": "6 GiB", "context": 8192, "on": {"host": "box", "gpus": (0,)}}
    data = labs.lab({"one": spec})
    (problem,) = [d for d in labs.taken(data).diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB143", ("deployments", "one", "vram"))
    budget = problem.hint.rpartition("`vram: ")[2].rstrip("`")
    assert labs.taken(labs.lab({"one": {**spec, "vram": budget}})).ok


@pytest.mark.parametrize("on", [{}, {"on": {"host": "box", "gpus": (0,)}}], ids=["placed", "declared"])
def test_vllm_needs_a_budget(on: dict[str, Any]) -> None:
    data = labs.lab({"one": {"model": "qwen", "engine": "vllm", **on}})
    assert "LAB064" in labs.codes(labs.taken(data))


def test_a_budget_of_a_model_that_nobody_knows_is_its_whole_size_and_a_process() -> None:
    models = {"odd": {"hf": "nobody/nothing-9000"}}
    spec = {"model": "odd", "engine": "vllm", "vram": "8 GiB", "on": {"host": "box", "gpus": (0,)}}
    (card, _) = labs.placed(labs.lab({"one": spec}, models=models)).ledger.gpus
    assert card.entries[0].bytes.total == 8 << 30
    assert card.entries[0].overhead > 0
    assert not card.entries[0].exact


def test_a_token_is_a_secret() -> None:
    one = workload({**VLLM, "token": "HF_TOKEN"}, "RTX 3090")
    value = one.env["HF_TOKEN"]
    assert isinstance(value, SecretText)
    assert value.names == ("HF_TOKEN",)


WRONG = {"llama.cpp": "qwen", "vllm": "llama", "ollama": "qwen"}


@pytest.mark.parametrize("engine", WRONG)
def test_each_engine_wants_models_of_its_own_kind(engine: str) -> None:
    spec = {"model": WRONG[engine], "engine": engine, "vram": "16 GiB", "on": {"host": "box", "gpus": (0,)}}
    assert labs.codes(labs.taken(labs.lab({"one": spec}))) == ["LAB065"]


def test_ollama_models_of_users_are_ollama_models() -> None:
    models = {"mine": {"ollama": "someone/finetune:7b"}}
    spec = {"model": "mine", "engine": "ollama", "vram": {"declared": "5 GiB"}, "on": {"host": "box", "gpus": (0,)}}
    assert labs.taken(labs.lab({"one": spec}, models=models)).ok
