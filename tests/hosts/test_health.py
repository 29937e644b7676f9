"""Telling what still loads from what has failed, with a manager that says what a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from labctl.artefact import HostRoot, Manager, Unit
from labctl.hosts import health
from labctl.hosts.base import HostError, Ran, Ref, Site, UnitManager
from labctl.hosts.compose import _refused
from labctl.hosts.local import LocalShell
from labctl.plan.observed import SeenUnit, UnitState
from labctl.workload import Health

UNIT = Unit(
    host="desk",
    name="chat",
    id="chat",
    manager=Manager.COMPOSE,
    project="compose.yaml",
    fingerprint="",
    health=Health(command=("ok",), start_period=3600),
)
SITE = Site(root=HostRoot(host="desk", root="/", state="state"), shell=LocalShell(), folder="/")
REF = Ref(name="chat", id="chat", project="compose.yaml", unit=UNIT)


class Told:
    """Reports what it was given, the last of it for ever."""

    def __init__(self, *seen: SeenUnit) -> None:
        self.seen = list(seen)

    def observe(self, refs: Sequence[Ref]) -> dict[str, SeenUnit]:
        return {ref.name: self.seen.pop(0) if len(self.seen) > 1 else self.seen[0] for ref in refs}


def wait(*seen: SeenUnit) -> None:
    manager = cast("UnitManager", Told(*seen))
    health.await_healthy(SITE, manager, REF, UNIT, lambda _: None, lambda: None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "POLL", 0.01)
    monkeypatch.setattr(health, "GIVE_UP", 0.1)


def starting(restarts: int) -> SeenUnit:
    return SeenUnit(state=UnitState.STARTING, restarts=restarts, detail="exit status 1")


def test_what_ends_again_and_again_is_not_waited_for() -> None:
    with pytest.raises(HostError, match=r"LAB110.*it ended 2 times"):
        wait(starting(0), starting(0), starting(1), starting(1), starting(2))


def test_what_ended_before_it_was_started_anew_does_not_count() -> None:
    """A unit that is restarted counts from nothing again, or goes on counting."""
    wait(starting(7), starting(0), starting(1), SeenUnit(state=UnitState.RUNNING, restarts=1))
    wait(starting(7), starting(8), SeenUnit(state=UnitState.RUNNING, restarts=8))


def test_what_is_down_is_given_up_soon() -> None:
    with pytest.raises(HostError, match=r"LAB110.*it is failed"):
        wait(starting(0), SeenUnit(state=UnitState.FAILED, detail="exit status 3"))


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            'Error response from daemon: could not select device driver "nvidia" with capabilities: [[gpu]]',
            "gpu_access",
        ),
        ("Error response from daemon: unknown or invalid runtime name: nvidia", "gpu_access"),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1", "nvidia-ctk cdi generate"),
        (
            'error gathering device information while adding custom device "/dev/kfd": no such file or directory',
            "driver",
        ),
        ("Bind for 127.0.0.1:8081 failed: port is already allocated", "docker ps"),
        ("something else", ""),
    ],
)
def test_what_docker_says_of_cards_and_ports_is_explained(said: str, hint: str) -> None:
    assert hint in _refused("chat", Ran(1, "", said)).hint
    assert bool(_refused("chat", Ran(1, "", said)).hint) == bool(hint)
