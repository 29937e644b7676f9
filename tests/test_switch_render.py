"""What a switch changes in what a lab renders to: the members of its group, and nothing that restarts others."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.artefact import Tree
from labctl.usecases import Loaded, load, with_active
from labctl.workload import Start

LAB = """\
lab: turns
hosts:
  box: {{address: 192.0.2.7, target: {target}, memory: 64 GiB, gpus: [{{model: RTX 3090}}]}}
models:
  small: {{gguf: hf://org/repo/small.gguf}}
deployments:
  one: &one {{engine: llama.cpp, model: small, context: 4096, on: {{host: box, gpus: [0]}}, vram: 10 GiB}}
  two: *one
  three: {{<<: *one, vram: 4 GiB}}
groups:
  turns: {{exclusive: [one, two], active: one}}
{gateway}
secrets: {{from: environment}}
"""

GATEWAY = "gateway: {engine: litellm, host: box}"


def loaded(folder: Path, target: str) -> Loaded:
    (folder / "lab.yaml").write_text(LAB.format(target=target, gateway=GATEWAY if target == "compose" else ""))
    found = load(folder)
    assert found.ok, [d.summary for d in found.diagnostics]
    return found


def fingerprints(tree: Tree) -> dict[str, str]:
    return {u.name: u.fingerprint for u in tree.units}


@pytest.mark.parametrize("target", ["compose", "systemd"])
def test_only_the_group_changes(target: str, tmp_path: Path) -> None:
    before = loaded(tmp_path, target)
    after = with_active(before, {"turns": "two"})
    first, second = before.need_rendered().tree, after.need_rendered().tree
    assert {u.name: u.start for u in first.units} != {u.name: u.start for u in second.units}
    assert {u.name for u in second.units if u.turns and u.start is Start.ALWAYS} == {"two"}
    old, new = fingerprints(first), fingerprints(second)
    assert {name for name in old if old[name] != new[name]} == {"one", "two"}
    assert {u.name: u.files for u in first.units} == {u.name: u.files for u in second.units}
    mine = {"one", "two"}
    paths = {p for u in first.units if u.name not in mine for p in (u.project, *u.files)}
    shared = {u.project for u in first.units if u.name in mine}
    contents = [{f.path: f.content for f in tree.files() if f.path in paths - shared} for tree in (first, second)]
    assert contents[0] == contents[1]


def test_nothing_changes_without_a_switch(tmp_path: Path) -> None:
    before = loaded(tmp_path, "compose")
    assert with_active(before, {}) is before
    same = with_active(before, {"turns": "one"})
    assert same.need_rendered().tree.digest() == before.need_rendered().tree.digest()
