"""llama-server's command line, as our own engine writes it."""

from __future__ import annotations

import pytest

from labctl.embedded.llama_flags import FlagError, Member, read_flags


def settings(*arguments: str) -> dict[str, object]:
    return dict(read_flags(["-m", "model.gguf", *arguments])[0])


def test_what_the_engine_emits() -> None:
    line = (
        "--model m.gguf --alias chat --host 127.0.0.1 --port 8080 --ctx-size 8192 --parallel 2 --batch-size 128 "
        "--ubatch-size 64 --gpu-layers 999 --fit off --metrics --no-webui --flash-attn auto --cache-type-k q8_0 "
        "--cache-type-v q8_0 --kv-unified --swa-full --cache-reuse 256 --mmproj p.gguf --embeddings --pooling last "
        "--jinja --chat-template llama3 --reasoning-format none --threads 2 --mlock --no-mmap --n-cpu-moe 2 "
        "--split-mode row --tensor-split 3,1"
    )
    found, _ = read_flags(line.split())
    assert found["model.path"] == "m.gguf"
    assert found["model_alias"] == {"chat"}
    assert (found["n_ctx"], found["n_parallel"], found["n_batch"], found["n_ubatch"]) == (8192, 2, 128, 64)
    assert found["fit_params"] is False
    assert found["cache_type_k"] == Member("ggml_type", "GGML_TYPE_Q8_0")
    assert found["load_mode"] == Member("llama_load_mode", "LLAMA_LOAD_MODE_MLOCK")
    assert found["tensor_split"] == [3.0, 1.0]
    assert str(found["tensor_buft_overrides"]).count("=CPU") == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("-c", "512"), {"n_ctx": 512}),
        (("-ngl", "all"), {"n_gpu_layers": -2}),
        (("-ngl", "auto"), {"n_gpu_layers": -1}),
        (("-ngl", "0"), {"n_gpu_layers": 0}),
        (("-np", "-1"), {"n_parallel": 4, "kv_unified": True}),
        (("--mlock",), {"load_mode": Member("llama_load_mode", "LLAMA_LOAD_MODE_MMAP_MLOCK")}),
        (("--no-mmap",), {"load_mode": Member("llama_load_mode", "LLAMA_LOAD_MODE_NONE")}),
        (("-fa", "on"), {"flash_attn_type": Member("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_ENABLED")}),
        (("--timeout", "90"), {"timeout_read": 90, "timeout_write": 90}),
        (("-fitt", "512"), {"fit_params_target": [512 << 20]}),
        (("--api-key", "a,b"), {"api_keys": ["a", "b"]}),
        (
            ("--rerank",),
            {"embedding": True, "pooling_type": Member("llama_pooling_type", "LLAMA_POOLING_TYPE_RANK")},
        ),
    ],
)
def test_single_flags(arguments: tuple[str, ...], expected: dict[str, object]) -> None:
    assert settings(*arguments) == {"model.path": "model.gguf", **expected}


def test_key_files_are_only_named() -> None:
    found, files = read_flags(["-m", "m", "--api-key-file", "a", "--api-key-file", "b"])
    assert (found, files) == ({"model.path": "m"}, ["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "m", "--frobnicate"], "--frobnicate"),
        (["-m", "m", "--cont"], "--cont"),
        (["-m", "m", "-ctk", "q9"], "is not one of f32"),
        (["-m", "m", "-c", "many"], "-c/--ctx-size"),
        (["-m", "m", "-fit", "maybe"], "not on or off"),
        (["-m", "m", "-fa"], "-fa"),
        (["--port", "1"], "no model"),
    ],
)
def test_what_is_not_understood(arguments: list[str], message: str) -> None:
    with pytest.raises(FlagError, match=message):
        read_flags(arguments)


def test_every_setting_exists_in_xllamacpp() -> None:
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    from labctl.embedded import llama_flags  # noqa: PLC0415 - its tables are not public

    tables = (*llama_flags._VALUES.values(), *llama_flags._SWITCHES.values())
    combined = {"rerank", "timeout", "no_mmap", "mlock"}
    for path in {str(row[0]) for row in tables} - combined:
        holder = xllamacpp.CommonParams()
        for name in path.split("."):
            holder = getattr(holder, name)
