"""The built-in catalogue: the labs' models, llama-quantize's mixes against real tensor lists, sources and speed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest

from labctl.vram.facts import Value
from labctl.vram.metadata.catalogue import FAMILIES, Known, lookup
from labctl.vram.metadata.ggml_types import BY_NAME
from labctl.vram.metadata.layout import tensors
from labctl.vram.metadata.quantise import DEFAULTS, quantise
from labctl.vram.metadata.shape import read_shape

MODELS = Path("/work/shared/vram/models.json")

FILES = {
    "hf://bartowski/Llama-3.1-8B-Stheno-v3.4-GGUF/Llama-3.1-8B-Stheno-v3.4-Q4_K_M.gguf": 4.92,
    "hf://Lewdiculous/Lumimaid-v0.2-8B-GGUF-IQ-Imatrix/Lumimaid-v0.2-8B-Q4_K_M-imat.gguf": 4.92,
    "hf://nomic-ai/nomic-embed-text-v1.5-GGUF/nomic-embed-text-v1.5.Q8_0.gguf": 0.146,
    "/mnt/ai_models/gpt-oss-120b-Q4_K_M-00001-of-00002.gguf": 63,
    "/mnt/ai_models/Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf": 18.56,
    "Dolphin-Mistral-24B-Venice-Edition-Q6_K_L.gguf": 19.67,
    "Qwen3-30B-A3B-Thinking-2507-Q8_0.gguf": 32.5,
    "gpt-oss-20b-Q8_0.gguf": 12.1,
    "OpenAI-20B-NEOPlus-Uncensored-Q8_0.gguf": 22.1,
    "OpenAI-20B-NEO-CODE-DI-Uncensored-Q8_0.gguf": 22.1,
    "AI21-Jamba-Reasoning-3B-F16.gguf": 6.4,
    "LFM2-8B-A1B-Q8_0.gguf": 8.87,
}
"""Name → size in GB, as the labs and their publishers give it."""

OTHERS = [
    "Huihui-Qwen3-VL-30B-A3B-Instruct-abliterated-Q8_0.gguf", "Dolphin-Mistral-24B-Venice-Edition-Q4_K_L.gguf",
    "mmproj-Huihui-Qwen3-VL-30B-A3B-Instruct-F16.gguf", "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf",
    "Qwen2.5-7B-Instruct-Q4_K_M.gguf", "MiniCPM-Llama3-V-2_5-Q4_K_M.gguf", "MiniCPM-V-2.5/mmproj-model-f16.gguf",
    "Qwen2.5-VL-7B-Instruct-Q4_K.gguf", "Qwen2.5-VL-7B-Instruct-mmproj-f16.gguf", "Qwen3-Embedding-8B-Q5_K_M.gguf",
    "llama3.1:8b", "gemma3:4b", "nomic-embed-text", "bge-m3",
]  # fmt: skip

FOLDERS = [
    "Qwen/Qwen3-VL-4B-Instruct", "zai-org/GLM-OCR", "Qwen/Qwen3-ASR-0.6B", "Qwen/Qwen3-ForcedAligner-0.6B",
    "Qwen/Qwen3-VL-Embedding-2B",
]  # fmt: skip


def known(source: str) -> Known:
    found = lookup(source)
    assert found is not None, source
    return found


@pytest.mark.parametrize("source", FILES)
def test_the_labs_files_have_their_published_size(source: str) -> None:
    found = known(source)
    assert found.gguf is not None
    assert found.size_bytes / 1e9 == pytest.approx(FILES[source], rel=0.01)


@pytest.mark.parametrize("source", OTHERS)
def test_the_labs_other_files_are_known(source: str) -> None:
    found = known(source)
    assert found.gguf is not None
    assert found.gguf.architecture
    assert found.source


def test_a_vision_model_and_its_projector_make_the_lab_s_33_6_gb() -> None:
    model, projector = known(OTHERS[0]), known(OTHERS[2])
    assert (model.size_bytes + projector.size_bytes) / 1e9 == pytest.approx(33.6, rel=0.01)


@pytest.mark.parametrize("source", FOLDERS)
def test_the_labs_model_folders_are_known(source: str) -> None:
    found = known(source)
    assert found.gguf is None
    assert found.hf is not None
    assert read_shape(found.hf.config).layers > 0


@pytest.mark.parametrize("source", ["", "x", "unknown/thing", "phi-2-Q4_K_M.gguf", "\0", "a" * 10_000, "q4_k_m.gguf"])
def test_what_is_not_known_is_none(source: str) -> None:
    assert lookup(source) is None


def test_names_that_are_alike_are_told_apart() -> None:
    pairs = {
        "Qwen3-8B-Q8_0.gguf": "qwen3", "Qwen3-VL-8B-Instruct-Q8_0.gguf": "qwen3vl", "Qwen2.5-7B-Q8_0.gguf": "qwen2",
        "gemma-2-2b-it-Q8_0.gguf": "gemma2", "gemma-2b-Q8_0.gguf": "gemma", "Meta-Llama-3-8B-Q8_0.gguf": "llama",
    }  # fmt: skip
    for name, architecture in pairs.items():
        facts = known(name).gguf
        assert facts is not None
        assert facts.architecture == architecture, name
    old, new = known("Llama-3-8B-Q8_0.gguf").gguf, known("Llama-3.1-8B-Q8_0.gguf").gguf
    assert old is not None
    assert new is not None
    assert (old.metadata["llama.context_length"], new.metadata["llama.context_length"]) == (8192, 131_072)


def test_only_a_named_mix_of_a_verified_model_is_exact() -> None:
    assert known("Llama-3.1-8B-Q4_K_M.gguf").exact
    assert not known("llama3.1:8b").exact
    assert not known("Llama-3.1-8B-UD-Q4_K_M.gguf").exact
    assert not known("Dolphin-Mistral-24B-Q4_K_M.gguf").exact
    assert not known("Qwen/Qwen3-8B-AWQ").exact
    fp8 = known("Qwen/Qwen3-8B-FP8").hf
    assert fp8 is not None
    assert fp8.config["quantization_config"] == {"quant_method": "fp8"}


@pytest.mark.skipif(not MODELS.exists(), reason="shared/vram/models.json is not on this machine")
def test_every_tensor_of_the_25_models_has_its_shape_and_type() -> None:
    """13,943 tensors of 33 files: names, extents, types, vocabulary, and every key that decides about memory."""
    data = json.loads(MODELS.read_text())
    count = 0
    for name, entry in data.items():
        metadata: Mapping[str, Value] = {}
        for mix, listed in entry["tensors"].items():
            facts = known(f"{name}-{mix}.gguf").gguf
            assert facts is not None
            want = {row[0]: (tuple(row[1]), row[2]) for row in listed}
            assert {tensor.name: (tensor.shape, tensor.type) for tensor in facts.tensors} == want, (name, mix)
            assert facts.vocab == entry["vocab"]
            count += len(want)
            metadata = facts.metadata
        for key, (_, value) in entry["metadata"].items():
            if key.startswith(("tokenizer.", "general.")) or any(word in key for word in IRRELEVANT):
                continue
            assert metadata.get(key) == (tuple(value) if isinstance(value, list) else value), (name, key)
    assert count == 13_943


IRRELEVANT = ("epsilon", "softcap", "yarn_log", "weights_scale", "finetuned")


@pytest.mark.parametrize("mix", sorted(DEFAULTS))
def test_every_mix_gives_rows_that_its_types_can_store(mix: str) -> None:
    for name in ("mixtral-8x7b", "qwen2.5-0.5b", "gemma-3-1b", "llama-3.1-70b", "deepseek-v2-lite", "bge-m3"):
        facts = known(f"{name}-F16.gguf").gguf
        hf = known(f"{name}-F16.gguf").hf
        assert facts is not None
        assert hf is not None
        for imatrix in (False, True):
            typed = quantise(facts.tensors, mix, read_shape(hf.config), imatrix=imatrix)
            assert all(tensor.shape[0] % BY_NAME[tensor.type].block == 0 for tensor in typed), (name, mix)
            assert [tensor.shape for tensor in typed] == [tensor.shape for tensor in facts.tensors]


def test_every_row_has_a_source_and_makes_tensors() -> None:
    ids = set()
    for family in FAMILIES:
        data = json.loads(files("labctl").joinpath("data", "models", f"{family}.json").read_text(encoding="utf-8"))
        for row in data["models"]:
            assert row["source"], row["id"]
            assert row["names"]
            assert row["id"] not in ids
            ids.add(row["id"])
            for name in row["names"]:
                assert lookup(name.replace(" ", "-") + "-Q4_K_M.gguf") or lookup(name.replace(" ", "-")), name
    assert len(ids) >= 100


def test_an_unknown_architecture_has_no_tensors() -> None:
    hf = known("Qwen/Qwen3-8B").hf
    assert hf is not None
    with pytest.raises(Exception, match="not known"):
        tensors("brand-new", read_shape(hf.config))


def test_a_lookup_is_quick_and_remembered() -> None:
    lookup("gpt-oss-120b-Q4_K_M.gguf")
    lookup.cache_clear()
    begun = time.process_time()
    first = lookup("Qwen3-30B-A3B-Q4_K_M.gguf")
    assert time.process_time() - begun < 0.05
    assert lookup("Qwen3-30B-A3B-Q4_K_M.gguf") is first


def test_the_catalogue_imports_no_network_and_no_yaml() -> None:
    code = (
        "import sys, labctl.vram.metadata.catalogue; print(sorted({'httpx', 'ruamel', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
