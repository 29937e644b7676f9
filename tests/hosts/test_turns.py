"""Exclusive groups: the member that runs is gone before another one starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.hosts.events import ChangeDone, Event
from labctl.hosts.supervisor import SupervisorManager
from labctl.plan.model import Action
from labctl.workload import Start
from tests.hosts.labs import HOST, Lab, Program, free_port


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    programs = {
        "alpha": Program(port=free_port(), turns="gpu"),
        "beta": Program(port=free_port(), turns="gpu", start=Start.ON_DEMAND),
        "other": Program(port=free_port()),
    }
    found = Lab(tmp_path / "lab", programs)
    assert found.apply().ok
    return found


def turn(lab: Lab, active: str) -> None:
    for name in ("alpha", "beta"):
        lab.change(name, start=Start.ALWAYS if name == active else Start.ON_DEMAND)


def actions(events: list[Event]) -> list[tuple[str, Action]]:
    return [(e.address, e.action) for e in events if isinstance(e, ChangeDone) and e.problem is None]


def test_the_one_that_runs_is_stopped_before_the_other_one_starts(lab: Lab) -> None:
    turn(lab, "beta")
    assert lab.apply().ok
    units = [(a, what) for a, what in actions(lab.events) if "/" in a and ":" not in a]
    assert units == [(f"{HOST}/alpha", Action.STOP), (f"{HOST}/beta", Action.START)]
    assert lab.starts() == ["alpha", "other", "beta"] or lab.starts() == ["other", "alpha", "beta"]
    assert not lab.plan().applyable
    turn(lab, "alpha")
    assert lab.apply().ok
    assert not lab.plan().applyable
    assert lab.destroy().ok


def test_one_that_does_not_stop_keeps_the_other_one_from_starting(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SupervisorManager, "stop", lambda *_: None)
    turn(lab, "beta")
    report = lab.apply()
    monkeypatch.undo()
    assert "LAB180" in {d.code for d in report.diagnostics}
    assert "beta" not in lab.starts()
    assert f"{HOST}/beta" in report.outcomes[HOST].skipped
    assert lab.apply().ok
    assert lab.starts()[-1] == "beta"
    assert lab.destroy().ok
