"""The memory benchmark: what it counts, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.vram import ggufs
from benchmarks.vram.cases import models
from benchmarks.vram.score import decisions, score
from labctl.vram.facts import GgufFacts
from labctl.vram.metadata.gguf import parse_gguf

DATA = Path(__file__).parents[1] / "data" / "vram"
GIB = 2**30


def test_score() -> None:
    got = score([(100, 100), (110, 100), (50, 100)])
    assert (got.rows, got.median, got.worst, got.worst_bytes) == (3, 10, 50, 50)


def test_decisions_count_only_near_a_card() -> None:
    assert decisions((1, 1)) == []
    assert decisions((23 * GIB, 25 * GIB)) == [(False, False), (True, False), (True, True)]
    got = score([(23 * GIB, 25 * GIB), (25 * GIB, 23 * GIB)])
    assert got.false_fits > 0
    assert got.false_refusals > 0


def test_headers_can_be_read_back(tmp_path: Path) -> None:
    facts = models(DATA)["qwen2.5-0.5b", "Q8_0"]
    path = tmp_path / "model.gguf"
    ggufs.write(path, GgufFacts(metadata=facts.metadata, tensors=facts.tensors, vocab=16))
    with path.open("rb") as file:
        data = file.read(1 << 20)
    found = parse_gguf(lambda offset, length: data[offset : offset + length], None)
    assert found.tensors == facts.tensors
    assert found.vocab == 16
    assert found.metadata["qwen2.block_count"] == facts.metadata["qwen2.block_count"]


def test_one_command_prints_the_table() -> None:
    command = [sys.executable, "-m", "benchmarks.vram", "--data", str(DATA), "--no-peer", "--limit", "40", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["groups"]["full offload"]["labctl"]["worst"] < 0.01
    assert len(found["measured"]) == 5
