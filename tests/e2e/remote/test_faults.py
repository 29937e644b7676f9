"""Hosts that are down, full, without Docker, somebody else's, or ask for a password; servers that never come up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from labctl.diagnostics import ExitCode
from labctl.hosts.connect import CONNECTIONS
from tests.cli.running import Ran
from tests.e2e.place import ask, chat, said
from tests.e2e.remote.home import Home, events, home, lab, until
from tests.rig.rig import Rig

pytestmark = pytest.mark.slow
WORDS = {"alpha": ("one", "First words of alpha"), "beta": ("two", "First words of beta"), "gamma": ("three", "gamma")}
OTHERS = {
    "alpha": ("one", "Other words of alpha|threads: 1"),
    "beta": ("two", "Other words of beta"),
    "gamma": ("three", "other"),
}
ALL = {"alpha@one", "beta@two", "gamma@three"}


@pytest.fixture(scope="module")
def place(rig: Rig) -> Iterator[Home]:
    with home(rig, lab(rig, WORDS), {}) as made:
        yield made
        made.run("destroy", "--yes", "--data", "--break-lock")


@pytest.fixture
def applied(place: Home) -> Home:
    """The lab with its first words, everywhere."""
    place.write(lab(place.rig, WORDS))
    place.apply()
    return place


def codes(ran: Ran) -> set[str]:
    return set(re.findall(r"LAB\d{3}", ran.out + ran.err))


def words(where: Home, name: str) -> str:
    return said(ask(where.url(name, WORDS[name][0]), None, "/v1/chat/completions", chat(name)))


def all_say(where: Home, servers: dict[str, tuple[str, str]]) -> None:
    where.settled()
    assert set(where.running()) == ALL
    assert {name: words(where, name) for name in servers} == {
        name: says.partition("|")[0] for name, (_, says) in servers.items()
    }


def one_failed(where: Home, host: str) -> Ran:
    """Apply other words: one host fails, is named, and the others are done."""
    where.write(lab(where.rig, OTHERS))
    ran = where.run("apply", "--yes")
    assert ran.code == ExitCode.PARTIAL, ran.out + ran.err
    assert host in ran.out + ran.err
    for name, (other, says) in OTHERS.items():
        if other != host:
            assert words(where, name) == says.partition("|")[0]
    return ran


def test_a_host_that_is_down(applied: Home) -> None:
    applied.rig.stop("lab2")
    try:
        plan = applied.plan()
        assert plan["complete"] is False
        assert applied.todo() == {"unknown two@two"}
        ran = one_failed(applied, "two")
        assert codes(ran)
    finally:
        applied.rig.start("lab2")
    applied.apply()
    all_say(applied, OTHERS)


def test_a_host_loses_power_in_the_middle(applied: Home) -> None:
    applied.write(lab(applied.rig, OTHERS))
    with applied.spawn("apply", "--yes", "--json") as process:
        for event in events(process):
            if event.get("event") == "ChangeStarted" and event["host"] == "two":
                applied.rig.stop("lab2")
                break
        process.communicate(timeout=120)
    try:
        assert process.returncode == ExitCode.PARTIAL
        assert words(applied, "gamma") == OTHERS["gamma"][1]
    finally:
        applied.rig.start("lab2")
    applied.apply()
    all_say(applied, OTHERS)


@contextmanager
def full(rig: Rig, host: str, folder: str) -> Iterator[None]:
    """Within, a folder has no space left: what was in it is there."""
    rig.sh(
        host,
        f"cp -a {folder} /run/kept; size=$(( $(du -s {folder} | cut -f1) + 64 ));"
        f" mount -t tmpfs -o size=${{size}}k,mode=755 full {folder}; cp -a /run/kept/. {folder}/;"
        f" cat /dev/zero >{folder}/filler 2>/dev/null || true",
    )
    try:
        yield
    finally:
        rig.sh(host, f"umount {folder}; rm -r /run/kept")


@pytest.mark.parametrize("folder", ["/opt/labctl", "/var/lib/labctl"])
def test_a_full_disk(applied: Home, folder: str) -> None:
    with full(applied.rig, "lab1", folder):
        one_failed(applied, "one")
        assert words(applied, "alpha") == WORDS["alpha"][1]
    applied.apply()
    all_say(applied, OTHERS)


def test_docker_is_stopped(applied: Home) -> None:
    applied.rig.sh("lab1", "systemctl stop docker.socket docker.service")
    try:
        plan = applied.plan()
        assert plan["complete"] is False
        assert "LAB104" in json.dumps(plan)
        one_failed(applied, "one")
    finally:
        applied.rig.sh("lab1", "systemctl start docker.service")
    applied.apply()
    all_say(applied, OTHERS)


@contextmanager
def known_hosts(where: Home, line: str) -> Iterator[Path]:
    """Within, something else is known of host two; connections of before are not used. Yields the file."""
    known, program = where.folder / "home/known_hosts", where.folder / "home/ssh"
    address = f"{where.address('two')},"
    others = [text for text in where.rig.known_hosts.read_text().splitlines() if not text.startswith(address)]
    known.write_text("\n".join([*others, line]) + "\n")
    program.write_text(f'#!/bin/sh\nexec {where.rig.ssh} -o UserKnownHostsFile={known} "$@"\n')
    program.chmod(0o755)
    with patch.dict(where.environment, {"LABCTL_SSH": str(program)}):
        CONNECTIONS.close()
        yield known
    CONNECTIONS.close()


def test_a_host_key_that_changed(applied: Home) -> None:
    other = applied.rig.key.with_suffix(".pub").read_text().strip()
    with known_hosts(applied, f"{applied.address('two')} {other}") as known:
        before = known.read_text()
        plan = applied.run("plan")
        assert plan.code != ExitCode.OK
        assert "LAB161" in codes(plan)
        with applied.exactly():
            assert applied.run("apply", "--yes", "--host", "two").code != ExitCode.OK
        assert known.read_text() == before
    all_say(applied, WORDS)


def test_a_host_that_nobody_met_before(applied: Home) -> None:
    with known_hosts(applied, "# nothing") as known:
        before = known.read_text()
        plan = applied.run("plan")
        assert plan.code != ExitCode.OK
        assert "LAB160" in codes(plan)
        assert "labctl trust two" in plan.err
        assert known.read_text() == before


def test_sudo_that_asks_for_a_password(applied: Home) -> None:
    applied.write(lab(applied.rig, WORDS, two="ssh: {user: asks}"))
    plan = applied.plan()
    assert plan["complete"] is False
    assert "sudo" in json.dumps(plan)
    assert applied.run("apply", "--yes").code != ExitCode.OK
    with patch.dict(applied.environment, {"LABCTL_SUDO_PASSWORD": "open sesame"}):
        all_say(applied, WORDS)
    applied.write(lab(applied.rig, WORDS))
    all_say(applied, WORDS)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_server_that_never_gets_healthy_is_rolled_back(applied: Home, name: str) -> None:
    host, says = WORDS[name]
    broken = {**OTHERS, name: (host, f"{says} again|startup: 3 s, args: [--no-such-flag]")}
    applied.write(lab(applied.rig, broken))
    ran = applied.run("apply", "--yes")
    assert ran.code == ExitCode.PARTIAL, ran.out + ran.err
    assert "LAB110" in codes(ran)
    assert "runs again as it was applied" in ran.out + ran.err
    until(lambda: set(applied.running()) == ALL)
    assert words(applied, name) == says
    assert all(words(applied, other) == OTHERS[other][1].partition("|")[0] for other in OTHERS if other != name)
    assert any(name in what for what in applied.units())
    applied.write(lab(applied.rig, OTHERS))
    applied.apply()
    all_say(applied, OTHERS)
