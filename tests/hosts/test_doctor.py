"""What a host needs: said in words, with a remedy; nothing is changed by looking."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from labctl.artefact import File, HostRoot, Manager, ModelFile, Tree, Unit
from labctl.hosts import fleet
from labctl.hosts.doctor import Examined, Subject, examine, polkit_problem, python_problem, toolkit_problem
from labctl.hosts.history import parse
from labctl.views.doctor import doctor_to_value, render_doctor
from labctl.workload import GpuAccess


def examined(root: HostRoot, *items: ModelFile | Unit) -> Examined:
    tree = Tree.of([root, *items])
    return examine(Subject(root=root, part=tree, seen=fleet.observe(tree).hosts[root.host]))


def problems(found: Examined) -> dict[str, str]:
    return {c.name: c.problem.code for c in found.checks if c.problem is not None}


def test_a_host_that_has_everything(tmp_path: Path) -> None:
    root = HostRoot(host="here", root=str(tmp_path / "lab"), state="state", managers=(Manager.SUPERVISOR,))
    found = examined(root)
    assert found.ok
    assert not problems(found)
    assert {"connection", "system", "rights", "disk"} <= {c.name for c in found.checks}
    assert "everything is there" in render_doctor([found])
    assert list(tmp_path.iterdir()) == []


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    root = HostRoot(host="here", root=str(tmp_path), state="state", managers=(Manager.SUPERVISOR,))
    found = examined(root, ModelFile(host="here", path="models/huge", url="https://example.invalid/m", size=1 << 60))
    assert problems(found) == {"disk": "LAB186"}
    text = render_doctor([found])
    assert "models of 1 EiB are to come" in text or "are to come" in text
    assert "→ make room" in text
    assert "here cannot be applied to yet" in text
    (value,) = doctor_to_value([found])
    assert value["ok"] is False
    assert [c["name"] for c in value["checks"] if not c["ok"]] == ["disk"]


def test_a_folder_that_may_not_be_written_to() -> None:
    root = HostRoot(host="here", root="/proc/1", state="state", managers=(Manager.SUPERVISOR,))
    assert problems(examined(root)).get("rights") == "LAB184"


@pytest.mark.parametrize(
    ("imports", "wrong"),
    [
        ({sys.executable: ("json", "http")}, None),
        ({sys.executable: ("json", "no_such_module")}, "lacks no_such_module"),
        ({"/no/such/python3": ("json",)}, "has no /no/such/python3"),
    ],
)
def test_the_python_of_the_gateways_unit(
    tmp_path: Path, imports: dict[str, tuple[str, ...]], wrong: str | None
) -> None:
    root = HostRoot(host="here", root=str(tmp_path), state="state", managers=(Manager.SUPERVISOR,))
    tree = Tree.of([root])
    found = examine(Subject(root=root, part=tree, seen=fleet.observe(tree).hosts["here"], imports=imports))
    (check,) = [c for c in found.checks if c.name == "python"]
    if wrong is None:
        assert check.problem is None
        assert "all libraries" in check.found
    else:
        assert check.problem is not None
        assert check.problem.code == "LAB187"
        assert wrong in check.problem.summary


def test_a_python_that_is_too_old() -> None:
    problem = python_problem("orin", "/usr/bin/python3", "3.10", [])
    assert problem is not None
    assert "is Python 3.10, and the gateway needs 3.11" in problem.summary


def test_rules_that_nobody_would_read(tmp_path: Path) -> None:
    root = HostRoot(host="here", root=str(tmp_path), state="state", managers=(Manager.SUPERVISOR,))
    rule = File(host="here", path="etc/polkit-1/rules.d/60-x.rules", content=b"")
    tree = Tree.of([root, rule])
    found = examine(Subject(root=root, part=tree, seen=fleet.observe(tree).hosts["here"]))
    (check,) = [c for c in found.checks if c.name == "polkit"]
    assert (check.problem is None) == (shutil.which("pkcheck") is not None)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("pkcheck version 126\n", ""),
        ("pkcheck version 0.120\n", ""),
        ("pkcheck version 0.105\n", "does not read rules"),
        ("", "has no polkit"),
    ],
)
def test_polkit(said: str, wrong: str) -> None:
    problem = polkit_problem("orin", said)
    assert (problem is None) == (not wrong)
    assert problem is None or wrong in problem.summary


@pytest.mark.parametrize(
    ("access", "info", "cdi", "wrong"),
    [
        (GpuAccess.RESERVATION, {"Runtimes": {"nvidia": {}}}, (), ""),
        (GpuAccess.RUNTIME, {"Runtimes": {"runc": {}}}, (), "no NVIDIA container toolkit"),
        (GpuAccess.RESERVATION, {}, (), "no NVIDIA container toolkit"),
        (GpuAccess.CDI, {"CDISpecDirs": ["/etc/cdi"]}, ("nvidia.yaml",), ""),
        (GpuAccess.CDI, {"CDISpecDirs": ["/etc/cdi"]}, (), "no CDI description"),
        (GpuAccess.CDI, {"CDISpecDirs": []}, ("nvidia.yaml",), "does not look for CDI"),
        (GpuAccess.CDI, {}, ("nvidia.yaml",), "does not look for CDI"),
    ],
)
def test_the_container_toolkit(access: GpuAccess, info: dict[str, Any], cdi: tuple[str, ...], wrong: str) -> None:
    problem = toolkit_problem("box", access, info, cdi)
    assert (problem is not None) == bool(wrong)
    if problem is not None:
        assert wrong in problem.summary
        assert problem.code == "LAB185"
        assert problem.hint


def test_a_log_with_a_line_that_was_cut_off() -> None:
    whole = b'{"at": "2026", "user": "ann", "machine": "desk", "action": "apply", "result": "done", "done": 3}\n'
    entries = list(parse("here", whole + b'{"at": "2026", "us\n' + b"[]\n" + whole[:-1]))
    assert [(e.user, e.result, e.done) for e in entries] == [("ann", "done", 3)] * 2
