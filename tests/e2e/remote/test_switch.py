"""Exclusive groups on real hosts: compose on one, systemd on the other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import ask, chat, said
from tests.e2e.remote.home import Home, home, lab
from tests.rig.rig import Rig

pytestmark = pytest.mark.slow
SERVERS = {
    "alpha": ("one", "The words of alpha"),
    "beta": ("one", "The words of beta"),
    "gamma": ("two", "The words of gamma"),
    "delta": ("two", "The words of delta"),
}


def text(rig: Rig, active: str = "alpha") -> str:
    groups = f"  docked: {{exclusive: [alpha, beta], active: {active}}}\n  native: {{exclusive: [gamma, delta]}}"
    return lab(rig, SERVERS, more=f"groups:\n{groups}")


@pytest.fixture(scope="module")
def place(rig: Rig) -> Iterator[Home]:
    with home(rig, text(rig), {}) as made:
        made.apply()
        yield made
        made.run("destroy", "--yes", "--data", "--break-lock")


def answers(where: Home, name: str) -> bool:
    host, words = SERVERS[name]
    return said(ask(where.url(name, host), None, "/v1/chat/completions", chat(name))) == words


@pytest.mark.parametrize(
    ("group", "old", "new"), [("docked", "alpha@one", "beta@one"), ("native", "gamma@two", "delta@two")]
)
def test_one_stops_the_other_starts_and_nobody_else_notices(place: Home, group: str, old: str, new: str) -> None:
    with place.exactly(new=(new,), gone=(old,)):
        assert "runs" in place.ok("switch", group, new.partition("@")[0]).out
    assert answers(place, new.partition("@")[0])
    place.settled()
    with place.exactly():
        place.apply()
    with place.exactly(new=(old,), gone=(new,)):
        place.ok("switch", group, old.partition("@")[0])
    place.settled()


def test_lab_yaml_has_the_last_word_when_it_changes(place: Home) -> None:
    place.ok("switch", "docked", "beta")
    place.write(text(place.rig, active="beta"))
    with place.exactly():
        assert "switched" not in place.apply().err
    place.write(text(place.rig))
    with place.exactly(new=("alpha@one",), gone=("beta@one",)):
        place.apply()
    groups = json.loads(place.ok("switch", "--json").out)["groups"]
    assert {g["group"]: (g["active"], g["switched"]) for g in groups} == {
        "docked": ("alpha", None),
        "native": ("gamma", None),
    }


def test_a_host_that_is_off_is_no_reason_to_forget(place: Home) -> None:
    place.ok("switch", "native", "delta")
    place.rig.stop("lab2")
    ran = place.run("switch", "native", "gamma")
    assert ran.code == ExitCode.ERROR
    place.rig.start("lab2")
    assert place.run("plan").code == ExitCode.OK
    groups = json.loads(place.ok("switch", "native", "--json").out)["groups"]
    assert [g["active"] for g in groups] == ["delta"]
