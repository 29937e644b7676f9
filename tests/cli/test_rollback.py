"""``labctl rollback`` as its users see it, on a lab of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.running import Ran, labctl
from tests.hosts.labs import free_port

pytest.importorskip("supervisor", reason="the package supervisor is not installed")

LAB = """\
lab: small
hosts: {{here: {{target: local, local: {{dir: {folder}}}}}}}
deployments:
  web: {{engine: command, on: {{host: here}}, program: {program}, args: [{args}], port: {port}, health_path: /}}
"""


def run(folder: Path, *arguments: str) -> Ran:
    return labctl(*arguments, cwd=folder, environment={"HOME": str(folder), "XDG_STATE_HOME": str(folder / "s")})


def test_without_a_generation_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    text = LAB.format(folder=tmp_path / "root", program="/bin/sleep", args="'9'", port=free_port())
    (tmp_path / "lab.yaml").write_text(text)
    listed = run(tmp_path, "rollback", "here", "--list")
    assert (listed.code, listed.out.strip()) == (
        0,
        "no generation is kept there: one is after every apply that goes well",
    ), listed.err
    refused = run(tmp_path, "rollback", "here", "--yes")
    assert refused.code == 1
    assert "LAB128" in refused.err
    unknown = run(tmp_path, "rollback", "there", "--list")
    assert unknown.code == 1
    assert "LAB050" in unknown.err


@pytest.mark.slow
def test_there_and_back(tmp_path: Path) -> None:
    port = free_port()

    def write(text: str) -> None:
        pages = tmp_path / text
        pages.mkdir(exist_ok=True)
        args = f"-m, http.server, '{port}', --bind, 127.0.0.1, --directory, {pages}"
        (tmp_path / "lab.yaml").write_text(
            LAB.format(folder=tmp_path / "root", program=sys.executable, args=args, port=port)
        )

    try:
        for text in ("one", "two"):
            write(text)
            assert run(tmp_path, "apply", "--yes").code == 0
        value = json.loads(run(tmp_path, "rollback", "here", "--list", "--json").out)
        assert [(g["number"], g["current"], g["units"]) for g in value["generations"]] == [
            (2, True, ["web"]),
            (1, False, ["web"]),
        ]
        asked = run(tmp_path, "rollback", "here")
        assert (asked.code, "LAB126" in asked.err) == (1, True)
        done = run(tmp_path, "rollback", "here", "--yes")
        assert done.code == 0, done.err
        assert "generation 1" in done.err + done.out
        planned = run(tmp_path, "plan", "--json")
        changed = [c["address"] for c in json.loads(planned.out)["changes"] if c["action"] != "noop"]
        assert "here/web" in changed, "lab.yaml still says two"
        lines = [
            json.loads(line)
            for line in run(tmp_path, "rollback", "here", "--to", "2", "--yes", "--json").out.splitlines()
        ]
        assert lines[-1]["generation"] == 2
        assert run(tmp_path, "plan", "--detailed-exitcode").code == 0
    finally:
        run(tmp_path, "destroy", "--yes", "--data")
