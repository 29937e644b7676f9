"""The commands that look at a lab without changing a host, as their users type them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from labctl.cli.funnel import run
from labctl.diagnostics import ExitCode
from labctl.tiny import scripted
from tests.cli.running import Ran
from tests.examples.labs import EXAMPLES, NAMES, bare

FARM = str(EXAMPLES / "p106-farm")
QUICK = str(EXAMPLES / "quickstart")


class Shell:
    """Runs labctl in an empty folder that is the home, too."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *arguments: str) -> Ran:
        with bare(self.folder):
            code = run(list(arguments))
        said = self._capture.readouterr()
        assert "bug in labctl" not in said.err
        return Ran(code, said.out, said.err)

    def json(self, *arguments: str, code: int = ExitCode.OK) -> Any:
        ran = self(*arguments, "--json")
        assert (ran.code, ran.err) == (code, "")
        return json.loads(ran.out)


@pytest.fixture
def labctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_render_lists_what_it_would_write(labctl: Shell) -> None:
    ran = labctl("render", FARM)
    assert ran.code == ExitCode.OK
    for word in ("ash  (root /)", "opt/labctl/p106-farm/compose.yaml", "secret", "embed-gpu0  after chat-sfw-gpu0"):
        assert word in ran.out
    assert files(labctl.folder) == set()


def test_render_as_json(labctl: Shell) -> None:
    found = labctl.json("render", FARM)
    assert {entry["host"] for entry in found["files"]} == {"ash", "image", "prod"}
    assert len(found["digest"]) == 64


def test_render_writes_once_and_says_so(labctl: Shell) -> None:
    first = labctl.json("render", QUICK, "--out", "out")
    assert set(first["new"]) == files(labctl.folder / "out")
    assert {"here/supervisord.conf", "here/gateway/config.yaml"} < set(first["new"])
    again = labctl.json("render", QUICK, "--out", "out")
    assert (again["new"], again["changed"], again["extra"]) == ([], [], [])
    assert again["same"] == len(first["new"])


def test_check_shows_every_kind_of_difference_and_writes_nothing(labctl: Shell) -> None:
    assert labctl("render", QUICK, "--out", "out").code == ExitCode.OK
    assert labctl("render", QUICK, "--out", "out", "--check").code == ExitCode.OK
    out = labctl.folder / "out"
    (out / "here/supervisord.conf").write_text("; by hand\n")
    (out / "here/gateway/config.yaml").unlink()
    (out / "old/unit.service").parent.mkdir()
    (out / "old/unit.service").write_text("[Unit]\n")
    ran = labctl("render", QUICK, "--out", "out", "--check")
    assert ran.code == ExitCode.CHANGES
    for line in ("+ here/gateway/config.yaml", "~ here/supervisord.conf", "- old/unit.service", "-; by hand"):
        assert line in ran.out
    assert not (out / "here/gateway/config.yaml").exists()
    assert labctl("render", QUICK, "--out", "out").code == ExitCode.OK
    assert not (out / "old").exists()
    assert labctl("render", QUICK, "--out", "out", "--check").code == ExitCode.OK


def test_a_changed_mode_is_a_difference(labctl: Shell) -> None:
    labctl("render", QUICK, "--out", "out")
    (labctl.folder / "out/here/supervisord.conf").chmod(0o600)
    assert labctl.json("render", QUICK, "--out", "out", "--check", code=2)["changed"] == ["here/supervisord.conf"]


def test_render_keeps_out_of_other_peoples_folders(labctl: Shell) -> None:
    (labctl.folder / "mine").mkdir()
    (labctl.folder / "mine/thesis.tex").write_text("all I have")
    ran = labctl("render", QUICK, "--out", "mine")
    assert (ran.code, "LAB087" in ran.err) == (ExitCode.ERROR, True)
    assert files(labctl.folder) == {"mine/thesis.tex"}
    (labctl.folder / "file").write_text("")
    assert "LAB088" in labctl("render", QUICK, "--out", "file").err


def test_check_needs_a_folder(labctl: Shell) -> None:
    ran = labctl("render", QUICK, "--check")
    assert (ran.code, "--out" in ran.err) == (2, True)


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_adds_up(name: str, labctl: Shell) -> None:
    budget = labctl.json("vram-budget", str(EXAMPLES / name))
    assert budget["fits"] is True
    for gpu in budget["gpus"]:
        assert gpu["used_bytes"] + gpu["free_bytes"] + gpu["reserve_bytes"] == gpu["capacity_bytes"]
    assert labctl("vram-budget", str(EXAMPLES / name)).out.endswith("Everything fits.\n")


def test_a_budget_that_does_not_fit_is_shown_whole(labctl: Shell) -> None:
    lab = labctl.folder / "lab.yaml"
    lab.write_text((EXAMPLES / "p106-farm/lab.yaml").read_text().replace("context: 8192", "context: 65536"))
    ran = labctl("vram-budget")
    assert ran.code == ExitCode.ERROR
    assert "chat-sfw" in ran.out
    assert "error[LAB061]" in ran.err
    found = labctl.json("vram-budget", code=1)
    assert found["fits"] is False
    assert {d["code"] for d in found["diagnostics"]} >= {"LAB061"}
    assert [g["fits"] for g in found["gpus"] if g["host"] == "ash"] == [False] * 8


def test_a_deployment_explained(labctl: Shell) -> None:
    text = labctl("vram-budget", FARM, "--explain", "chat-sfw").out
    assert text.count("KV cache") == 1, "equal servers are explained once"
    assert all(f"chat-sfw-gpu{i}" in text for i in range(4))
    assert "llama.cpp src/" in text, "every number names its source"
    found = labctl.json("vram-budget", FARM, "--explain", "chat-sfw")
    assert set(found) == {f"chat-sfw-gpu{i}" for i in range(4)}


def test_the_largest_context_fits_and_one_more_step_does_not(labctl: Shell) -> None:
    (found, *_) = labctl.json("vram-budget", FARM, "--max-context", "chat-sfw")
    largest = found["max_context"]
    assert largest > found["context"] == 8192
    text = (EXAMPLES / "p106-farm/lab.yaml").read_text()
    for context, fits in ((largest, True), (largest + 2048, False)):
        (labctl.folder / "lab.yaml").write_text(text.replace("context: 8192", f"context: {context}"))
        assert labctl.json("vram-budget", code=0 if fits else 1)["fits"] is fits


@pytest.mark.parametrize("option", ["--explain", "--max-context"])
def test_a_name_that_is_not_there(option: str, labctl: Shell) -> None:
    ran = labctl("vram-budget", FARM, option, "chat")
    assert (ran.code, "LAB053" in ran.err, "chat-sfw" in ran.err) == (ExitCode.ERROR, True, True)


def test_the_budget_of_a_file(labctl: Shell) -> None:
    (labctl.folder / "tiny.gguf").write_bytes(scripted("One two three."))
    small = labctl.json("vram-budget", "--gguf", "tiny.gguf", "--context", "1024")
    large = labctl.json("vram-budget", "--gguf", "tiny.gguf", "--context", "2048")
    contexts = [found["devices"][0]["context_bytes"] for found in (small, large)]
    assert contexts[1] == 2 * contexts[0] > 0
    halved = labctl.json("vram-budget", "--gguf", "tiny.gguf", "--context", "2048", "--kv-cache-k", "q8_0")
    assert halved["devices"][0]["context_bytes"] < contexts[1]
    assert "tiny.gguf" in labctl("vram-budget", "--gguf", "tiny.gguf").out


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"not a model at all"])
def test_a_file_that_is_no_model(content: bytes | None, labctl: Shell) -> None:
    if content is not None:
        (labctl.folder / "bad.gguf").write_bytes(content)
    ran = labctl("vram-budget", "--gguf", "bad.gguf")
    assert (ran.code, ran.out) == (ExitCode.ERROR, "")
    assert ran.err.startswith("error[LAB14")


@pytest.mark.parametrize("name", NAMES)
def test_an_offline_plan_asks_nobody(name: str, labctl: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a host was asked")

    monkeypatch.setattr("labctl.hosts.fleet.connect", refuse)
    plan = labctl.json("plan", "--offline", str(EXAMPLES / name))
    assert {change["action"] for change in plan["changes"]} <= {"create"}
    assert plan["counts"] == ({"create": len(plan["changes"])} if plan["changes"] else {})
    ran = labctl("plan", "--offline", "--detailed-exitcode", str(EXAMPLES / name))
    assert ran.code == (ExitCode.CHANGES if plan["changes"] else ExitCode.OK)
    assert files(labctl.folder) == set()


def test_a_plan_for_some_hosts(labctl: Shell) -> None:
    plan = labctl.json("plan", "--offline", "--host", "prod", FARM)
    assert {change["host"] for change in plan["changes"]} == {"prod"}
    ran = labctl("plan", "--offline", "--host", "nowhere", FARM)
    assert (ran.code, "LAB050" in ran.err) == (ExitCode.ERROR, True)


def test_apply_does_not_ask_where_nobody_answers(labctl: Shell) -> None:
    ran = labctl("apply", QUICK)
    assert (ran.code, "LAB126" in ran.err) == (ExitCode.ERROR, True)
    assert files(labctl.folder) == set()


def test_before_the_first_apply(labctl: Shell) -> None:
    shutil.copytree(QUICK, labctl.folder / "lab")
    units = labctl.json("status", "lab", code=1)["units"]
    assert {unit["unit"]: unit["state"] for unit in units} == dict.fromkeys(
        ("alpha", "beta", "gateway", "letters"), "absent"
    )
    plan, result = map(json.loads, labctl("destroy", "lab", "--json").out.splitlines())
    assert (plan["event"], plan["plan"]["changes"]) == ("Plan", [])
    assert (result["event"], result["ok"], result["exit_code"]) == ("Result", True, 0)
    assert "nothing of it to remove" in labctl("destroy", "lab").err
    ran = labctl("logs", "delta", "lab")
    assert (ran.code, "LAB053" in ran.err) == (ExitCode.ERROR, True)
