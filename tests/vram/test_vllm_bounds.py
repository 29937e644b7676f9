"""vLLM's memory model against measured servers: the promised error bounds, and a benchmark that survives odd rows."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.vram import vllm
from benchmarks.vram.aims import aim_of
from benchmarks.vram.cases import read
from benchmarks.vram.score import score

DATA = Path(__file__).parents[1] / "data" / "vram"
HEADING = (DATA / "measured.csv").read_text().splitlines()[0]


def test_bounds() -> None:
    """Weights ≤ 0.5 % on every row, KV ≤ 2 % at the median; two outliers of KV come from non-torch memory."""
    found = vllm.compare(DATA)
    got = found.summary
    assert (got.weights_rows, got.kv_rows) == (8, 7)
    assert got.weights_max is not None
    assert got.weights_max <= 0.5
    assert got.kv_median is not None
    assert got.kv_median <= 0.2
    assert max(found.errors("kv")) <= 5.2
    assert max(found.errors("activation")) <= 2.5
    assert got.weights_met
    assert got.kv_met


def test_every_row_is_compared_or_skipped_with_a_reason() -> None:
    found = vllm.compare(DATA)
    with (DATA / "measured.csv").open(newline="") as file:
        labels = {row["model"] for row in csv.DictReader(file) if row["engine"] == "vllm"}
    assert {part.model for part in found.parts} | {skip.model for skip in found.skipped} == labels
    assert all(skip.reason for skip in found.skipped)
    assert sum(skip.part == "all" for skip in found.skipped) == 3


def test_rows_with_other_labels(tmp_path: Path) -> None:
    """A label outside the table counts if the catalogue knows a model of that size; columns may be missing."""
    rows = "vllm,Qwen/Qwen3-8B,16000\nvllm,Qwen3-777B,1\nvllm,no-such-model,1\nvllm,Qwen3-4B,many\n"
    (tmp_path / "measured.csv").write_text("engine,model,weights_mib\n" + rows)
    found = vllm.compare(tmp_path)
    assert [(part.model, part.part) for part in found.parts] == [("Qwen/Qwen3-8B", "weights")]
    assert [skip.model for skip in found.skipped if skip.part == "all"] == ["Qwen3-777B", "no-such-model", "Qwen3-4B"]


def test_a_missing_file_is_said() -> None:
    found = vllm.compare(Path("/nonexistent"))
    assert not found.parts
    assert "no such file" in found.skipped[0].reason
    assert found.summary.weights_met is None


def test_aims_are_those_of_the_group_whatever_the_build() -> None:
    full, encoders = aim_of("build b9999, full offload"), aim_of("encoders")
    assert full is not None
    assert encoders is not None
    assert aim_of("CPU only") is None
    assert full.met(score([(1000, 1000)]))
    assert not full.met(score([(1003, 1000)]))
    assert encoders.met(score([(1003, 1000)]))


def other_data(folder: Path) -> None:
    """A folder of one unknown architecture, a row without its model, one with a bad number, and no other file."""
    entry = {
        "metadata": {"general.architecture": ["str", "brand-new"], "brand-new.block_count": ["u32", 1]},
        "tensors": {"Q8_0": [["blk.0.ffn_up.weight", [64, 64], "Q99_Z"]], "F16": [["output.weight", [64, 64], "F16"]]},
    }
    (folder / "models.json").write_text(json.dumps({"odd": entry}))
    heading = "model,quant,ctx,parallel,kv,fa,ubatch,ngl,model_mib,kv_mib,compute_mib\n"
    rows = ("odd,Q8_0,1,1,f16,1,512,99,1,1,1", "odd,F16,1,1,f16,1,512,99,1,1,1", "none,F16,1,1,f16,1,512,99,1,1,1",
            "odd,F16,x,1,f16,1,512,99,1,1,1")  # fmt: skip
    (folder / "llamacpp-b12000.csv").write_text(heading + "\n".join(rows) + "\n")
    (folder / "llamacpp-b12000-multigpu.csv").write_text("model,quant\nodd,F16\n")


def test_other_data_is_printed_and_not_a_crash(tmp_path: Path) -> None:
    other_data(tmp_path)
    cases, skipped = read(tmp_path)
    assert len(cases) == 2
    assert len(skipped) == 3
    command = [sys.executable, "-m", "benchmarks.vram", "--data", str(tmp_path), "--no-peer"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "none F16 is not in models.json" in text
    found = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert found["vllm"]["summary"]["weights_rows"] == 0
    assert any("Q99_Z" in reason for reason in found["skipped"]), found["skipped"]


@pytest.mark.parametrize("name", ["models.json.gz", "measured.csv", "llamacpp-b11549.csv"])
def test_each_file_may_be_missing(tmp_path: Path, name: str) -> None:
    for path in DATA.glob("*.csv"):
        shutil.copy(path, tmp_path)
    shutil.copy(DATA / "models.json.gz", tmp_path)
    (tmp_path / name).unlink()
    cases, skipped = read(tmp_path)
    assert bool(cases) != bool(skipped)
    assert bool(vllm.compare(tmp_path).parts) == (name != "measured.csv")
