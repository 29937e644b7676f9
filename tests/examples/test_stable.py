"""The tree moves only when the lab says something else: not by order, process, folder or hash seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from labctl.artefact import Tree
from labctl.usecases import load
from tests.examples import labs
from tests.tools.compose import folder

SECTIONS = ("hosts", "models", "deployments", "services", "groups")
_SHOW = (
    "import sys; from pathlib import Path; from labctl import usecases; "
    "r = usecases.load(Path(sys.argv[1])).need_rendered();"
    "sys.stdout.buffer.write(b''.join(k.encode() + v for k, v in usecases.tree_files(r).items()));"
    "print(r.tree.digest(), [(u.host, u.name, u.after, u.fingerprint, u.files) for u in r.tree.units])"
)


@st.composite
def shuffled(draw: st.DrawFn, data: dict[str, Any]) -> dict[str, Any]:
    """Draw the same lab with its entries in another order."""
    keys = draw(st.permutations(sorted(data)))
    return {k: _entries(draw, data[k]) if k in SECTIONS else data[k] for k in keys}


def _entries(draw: st.DrawFn, block: dict[str, Any]) -> dict[str, Any]:
    return {name: block[name] for name in draw(st.permutations(sorted(block)))}


def rendered(data: dict[str, Any], lab: Path) -> Tree:
    (lab / "lab.yaml").write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with labs.bare(lab):
        return labs.tree(load(Path("lab.yaml")))


@pytest.mark.parametrize("name", labs.NAMES)
def test_the_order_of_entries_means_nothing(name: str) -> None:
    loaded = labs.example(name)
    assert loaded.document is not None
    data: dict[str, Any] = json.loads(json.dumps(loaded.document.data))
    wanted = labs.tree(loaded)

    @given(shuffled(data))
    @settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def check(other: dict[str, Any]) -> None:
        with folder() as lab:
            tree = rendered(other, lab)
        for path, file in {(f.host, f.path): f for f in tree.files()}.items():
            assert file.content == {(f.host, f.path): f for f in wanted.files()}[path].content, path
        assert labs.manifest(tree) == labs.manifest(wanted)
        assert tree.digest() == wanted.digest()

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", labs.NAMES)
def test_the_same_in_every_process(name: str, tmp_path: Path) -> None:
    """Another hash seed, another working directory, another way to write the path, another home."""
    lab = labs.EXAMPLES / name
    (tmp_path / "lab").symlink_to(lab)
    seen = set()
    for seed, cwd, path in (("0", lab, "."), ("1", tmp_path, str(lab / "lab.yaml")), ("4242", tmp_path, "lab")):
        environment = {
            "PYTHONHASHSEED": seed,
            "HOME": f"/nonexistent/{seed}",
            "PATH": "/usr/bin:/bin",
            "TZ": "Asia/Tokyo",
        }
        command = [sys.executable, "-c", _SHOW, path]
        seen.add(subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=True).stdout)
    assert len(seen) == 1
    assert len(seen.pop()) > 60
