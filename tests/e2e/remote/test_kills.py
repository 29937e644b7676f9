"""Applies that are killed at any moment, and two at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import ask, chat, lines_until, said
from tests.e2e.remote.home import Home, home, lab
from tests.rig.rig import Rig

pytestmark = pytest.mark.slow
ROUNDS = 8
FIRST = {"alpha": ("one", "First words of alpha"), "beta": ("two", "First words of beta")}
SECOND = {"alpha": ("one", "Second words of alpha"), "gamma": ("two", "The words of gamma")}


@pytest.fixture(scope="module")
def place(rig: Rig) -> Iterator[Home]:
    with home(rig, text(rig, FIRST), {}) as made:
        yield made
        made.run("destroy", "--yes", "--data", "--break-lock")


def text(rig: Rig, servers: dict[str, tuple[str, str]]) -> str:
    return lab(rig, servers)


def runs(where: Home, servers: dict[str, tuple[str, str]]) -> None:
    """The lab is what its file says, and nothing else of it runs."""
    where.settled()
    assert set(where.running()) == {f"{name}@{host}" for name, (host, _) in servers.items()}
    for name, (host, says) in servers.items():
        assert said(ask(where.url(name, host), None, "/v1/chat/completions", chat(name))) == says


def killed_after(where: Home, lines: int) -> None:
    """Start an apply and end it with SIGKILL after so many events."""
    with where.spawn("apply", "--yes", "--json", "--wait", "30") as process:
        lines_until(process, lines)
        process.send_signal(signal.SIGKILL)


def test_an_apply_killed_at_many_points(place: Home) -> None:
    total = len(place.apply("--json").out.splitlines())
    states = [SECOND, FIRST]
    for i in range(ROUNDS):
        servers = states[i % 2]
        place.write(text(place.rig, servers))
        killed_after(place, 1 + i * total // ROUNDS)
        ran = place.run("apply", "--yes", "--wait", "30")
        assert ran.code == ExitCode.OK, (i, ran.out, ran.err)
        runs(place, servers)


def test_two_applies_at_once(place: Home) -> None:
    """One waits, or says whose lock it is and changes nothing."""
    place.write(text(place.rig, FIRST))
    place.apply()
    place.write(text(place.rig, SECOND))
    both = [place.spawn("apply", "--yes", "--wait", "60") for _ in range(2)]
    said_by = [process.communicate(timeout=180) for process in both]
    assert {p.returncode for p in both} <= {ExitCode.OK, ExitCode.STALE}, said_by
    assert ExitCode.OK in {p.returncode for p in both}
    runs(place, SECOND)
    place.write(text(place.rig, FIRST))
    with place.spawn("apply", "--yes", "--json") as first:
        lines_until(first, 4)
        time.sleep(0.3)
        refused = place.run("apply", "--yes")
        first.communicate(timeout=120)
    assert first.returncode == ExitCode.OK
    assert refused.code == ExitCode.OK or "LAB103" in refused.err or refused.code == ExitCode.STALE, refused.err
    runs(place, FIRST)
