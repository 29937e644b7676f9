"""A host goes back to what it was: by itself when a unit fails, and when it is asked to."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.artefact import File
from labctl.diagnostics import ExitCode
from labctl.hosts import fleet
from labctl.hosts.applying import How, tree_for
from labctl.hosts.connect import connect
from labctl.hosts.events import HostDone, HostFailed, RollbackDone, RollbackStarted
from labctl.hosts.generations import overview
from labctl.hosts.work import CRASH
from labctl.plan.diff import diff
from labctl.secrets import Secret, Secrets
from tests.hosts.labs import HOST, KEY, Lab, Program, free_port

pytestmark = pytest.mark.slow
pytest.importorskip("supervisor", reason="the package supervisor is not installed")


@pytest.fixture
def lab() -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    made = Lab(folder / "root", {"web": Program(port=free_port(), secret=True)}, [file("one")])
    yield made
    made.destroy()
    shutil.rmtree(folder)


def file(text: str) -> File:
    return File(host=HOST, path="conf/a.txt", content=text.encode())


def answer(lab: Lab) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{lab.programs['web'].port}/", timeout=5) as found:
        return str(found.read().decode())


def go_back(lab: Lab, number: int | None = None) -> fleet.Report:
    """Do what ``labctl rollback`` does."""
    root = lab.tree().roots[HOST]
    generation = overview(connect(root)).chosen(number)
    assert generation is not None
    tree = tree_for(root, generation)
    plan = diff(tree, fleet.observe(tree), generation.secret_digests(HOST), lab="test", lab_digest="d")
    lab.events.clear()
    return fleet.apply(plan, tree, Secrets(), lab.events.append, How(generations={HOST: generation}))


def test_a_unit_that_fails_brings_its_host_back(lab: Lab) -> None:
    assert lab.apply().ok
    lab.change("web", text="broken", version="two", command="false")
    lab.extra = [file("two")]
    lab.secrets = Secrets({"API_KEY": Secret("another value")})
    report = lab.apply()
    assert report.exit_code == ExitCode.PARTIAL
    assert report.outcomes[HOST].back_to == 1
    assert f"{HOST}/web" in report.outcomes[HOST].failed
    assert {"LAB149", "LAB110"} <= {d.code for d in report.diagnostics}
    assert (lab.root / "conf/a.txt").read_text() == "one"
    assert answer(lab) == "hello"
    assert KEY.split("$")[0] in (lab.root / "secrets/web.env").read_text()
    told = [e for e in lab.events if isinstance(e, RollbackStarted | RollbackDone | HostFailed | HostDone)]
    assert [type(e) for e in told] == [RollbackStarted, RollbackDone, HostFailed]
    assert "another value" not in repr(lab.events)
    first = replace(lab, secrets=Lab(lab.root).secrets, extra=[file("one")], programs={})
    lab.change("web", text="hello", version="one", command="")
    first.programs = lab.programs
    assert not first.plan().applyable, "the host is exactly what it was"


def test_nothing_to_go_back_to(lab: Lab) -> None:
    lab.change("web", command="false")
    report = lab.apply()
    assert [d.code for d in report.outcomes[HOST].diagnostics] == ["LAB154"]
    assert report.exit_code == ExitCode.PARTIAL
    assert (lab.root / "conf/a.txt").read_text() == "one"


def test_back_and_forth_by_hand(lab: Lab) -> None:
    for text in ("one", "two", "three", "four"):
        lab.extra = [file(text)]
        lab.change("web", text=text)
        assert lab.apply().ok
    site = connect(lab.tree().roots[HOST])
    known = overview(site)
    assert ([g.number for g in known.generations], known.current) == ([2, 3, 4], 4)
    assert go_back(lab).ok
    assert (answer(lab), (lab.root / "conf/a.txt").read_text()) == ("three", "three")
    assert overview(site).current == 3
    assert go_back(lab).ok
    assert answer(lab) == "two"
    assert go_back(lab, 4).ok
    assert answer(lab) == "four"
    assert overview(site).current == 4
    assert not lab.plan().applyable, "as if nothing had happened"


def test_an_apply_without_changes_keeps_no_generation_of_its_own(lab: Lab) -> None:
    assert lab.apply().ok
    assert lab.apply().ok
    assert [g.number for g in overview(connect(lab.tree().roots[HOST])).generations] == [1]


def test_what_is_kept_is_for_its_owner_only_and_goes_with_the_lab(lab: Lab) -> None:
    assert lab.apply().ok
    folder = lab.root / "state/generations"
    modes = {str(p.relative_to(folder)): stat.S_IMODE(p.stat().st_mode) for p in [folder, *folder.rglob("*")]}
    assert modes == {".": 0o700, "1": 0o700, "1.json": 0o600, "1/secret-0": 0o600}
    assert KEY not in (folder / "1.json").read_text()
    assert lab.destroy().ok
    assert not folder.exists()


def test_a_generation_is_the_tree(lab: Lab) -> None:
    assert lab.apply().ok
    (generation,) = overview(connect(lab.tree().roots[HOST])).generations
    assert generation.tree == lab.tree()
    assert generation.tree.digest() == lab.tree().digest()


KILLED = """
import sys
from pathlib import Path
from tests.hosts.test_rollback import Lab, Program, file, go_back
go_back(Lab(Path(sys.argv[1]), {"web": Program(port=int(sys.argv[2]), secret=True)}, [file("two")]))
"""


def test_killed_on_the_way_back_it_is_gone_on_with(lab: Lab) -> None:
    """The manifest says that the host is no generation while it is on its way; the way back is taken again."""
    assert lab.apply().ok
    lab.extra = [file("two")]
    assert lab.apply().ok
    arguments = [sys.executable, "-c", KILLED, str(lab.root), str(lab.programs["web"].port)]
    assert subprocess.run(arguments, env={**os.environ, CRASH: "1"}, check=False).returncode == -9
    assert overview(connect(lab.tree().roots[HOST])).current == 0
    assert go_back(lab, 1).ok
    assert (lab.root / "conf/a.txt").read_text() == "one"
