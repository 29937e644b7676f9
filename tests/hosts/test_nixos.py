"""What a NixOS host says, and what becomes of it. The host is a FAKE: ``tests/e2e/remote`` has a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from labctl.artefact import SYSTEM, Activation, HostRoot, Manager, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts import nixos_record as record
from labctl.hosts import nixos_switch
from labctl.hosts.base import HostError, LostError, Ran, Ref, Site, Stopped
from labctl.hosts.nixos import NixosManager
from labctl.hosts.nixos_switch import Switch, failed_in
from labctl.hosts.ssh_options import Destination
from labctl.hosts.watching import Watch
from labctl.plan.observed import SeenUnit, UnitState

OLD, NEW = "/nix/store/old", "/nix/store/new"
PENDING, DONE, BACK = "there\npending\n", "code 0\n", "there\ntaken-back\nback-code 0\n"
UNIT = Unit(host="box", name="system", id=SYSTEM, manager=Manager.NIXOS, project="etc/f/flake.nix", fingerprint="new")
REF = Ref(name="system", id=SYSTEM, project=UNIT.project, unit=UNIT)


class FakeHost:
    """A ``Shell`` that knows a script by words of it, and answers what it was told to; the last answer stays."""

    def __init__(self, **answers: Sequence[str | Ran]) -> None:
        self.answers = {name.replace("_", "-"): list(said) for name, said in answers.items()}
        self.ran: list[str] = []
        self.files: dict[str, bytes] = {}

    def run(self, argv: Sequence[str], **_: Any) -> Ran:
        script = " ".join(argv)
        known = [name for name in self.answers if name in script]
        self.ran.append(known[0] if known else script)
        if not known:
            return Ran(0)
        said = self.answers[known[0]]
        answer = said.pop(0) if len(said) > 1 else said[0]
        return answer if isinstance(answer, Ran) else Ran(0, answer)

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        yield from self.run(argv).out.splitlines()

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:  # noqa: ARG002 - part of the protocol
        self.files[path] = content

    def make_folders(self, path: str) -> tuple[str, ...]:
        return (path,)

    def whoami(self) -> str:
        return "1.2.3"


def site(host: FakeHost) -> Site:
    root = HostRoot(host="box", root="/", state="var/lib/labctl/x", activation=Activation(confirm=1))
    return Site(root=root, shell=host, folder="/")  # type: ignore[arg-type]  # a fake


def switch(host: FakeHost, told: list[str] | None = None) -> Switch:
    said = [] if told is None else told
    return Switch(site(host), "system", Watch(tell=lambda _, text: said.append(text)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nixos_switch, "POLL", 0.0)


def test_a_host_that_is_this_machine_needs_no_new_connection() -> None:
    told: list[str] = []
    host = FakeHost(tail=[f"{PENDING}log\n", f"{PENDING}{DONE}log\nstarting\n"])
    switch(host, told).to(OLD, NEW)
    assert told[-2:] == ["starting", "confirmed"]
    assert any("mv -T" in line for line in host.ran)
    assert any("nix-env" in line for line in host.ran)


def test_the_same_system_is_not_activated_again() -> None:
    host = FakeHost()
    switch(host).to(NEW, NEW)
    assert not any("--on-active" in line for line in host.ran)
    assert any("nix-env" in line for line in host.ran)


@pytest.mark.parametrize(
    ("code", "log", "before", "what"),
    [
        (4, "warning: the following units failed: a.service, b.service", "", "units failed: a.service, b.service"),
        (4, "Failed to start c.service\n", "", "units failed: c.service"),
        (4, "warning: the following units failed: a.service, b.service", "a.service x", "units failed: b.service;"),
        (4, "something else", "", "exit status 4"),
        (1, "Pre-switch checks failed", "", "exit status 1"),
        (100, "Warning: the new NixOS configuration has an init that is incompatible", "", "it can only be booted"),
    ],
)
def test_an_activation_that_failed(code: int, log: str, before: str, what: str) -> None:
    answers: dict[str, Sequence[str | Ran]] = {"list-units": [before]}
    host = FakeHost(**answers, tail=[f"{PENDING}code {code}\nlog\n{log}", BACK])
    with pytest.raises(HostError) as caught:
        switch(host).to(OLD, NEW)
    assert caught.value.diagnostic.code == "LAB243"
    assert what in caught.value.diagnostic.summary
    assert any("/back" in line or "start --no-block labctl-nixos-back" in line for line in host.ran)
    assert not any("nix-env" in line for line in host.ran)


def test_what_had_failed_before_does_not_count() -> None:
    told: list[str] = []
    log = "warning: the following units failed: old.service"
    host = FakeHost(**{"list-units": ["old.service loaded failed failed"], "tail": [f"{PENDING}code 4\nlog\n{log}\n"]})
    switch(host, told).to(OLD, NEW)
    assert "failed before and still: old.service" in told


def test_nobody_answers_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost(tail=[f"{PENDING}log\n"])
    monkeypatch.setattr(nixos_switch, "ACTIVATION_PATIENCE", 0)
    monkeypatch.setattr(nixos_switch, "BACK_PATIENCE", 0)
    with pytest.raises(LostError) as caught:
        switch(host).to(OLD, NEW)
    assert caught.value.diagnostic.code == "LAB245"


def test_a_confirmation_whose_answer_was_lost_counts() -> None:
    said = [f"{PENDING}{DONE}log\n", "there\nconfirmed\ncode 0\nlog\n"]
    host = FakeHost(tail=said)
    host.answers["mv -T"] = [Ran(1)]
    switch(host).to(OLD, NEW)


@pytest.mark.parametrize("error", [Stopped(), HostError(Diagnostic(code="LAB103", summary="somebody took the lock"))])
def test_who_stops_has_the_old_system_back_first(error: Exception) -> None:
    calls = iter([None, None])

    def check() -> None:
        if next(calls, error) is error:
            raise error

    host = FakeHost(tail=[BACK])
    with pytest.raises(type(error)):
        Switch(site(host), "system", Watch(check=check)).to(OLD, NEW)
    assert any("start --no-block labctl-nixos-back.service" in line for line in host.ran)
    assert not any("mv -T" in line for line in host.ran)


def test_units_that_an_activation_names() -> None:
    log = "Failed to restart a.service: no such unit\nwarning: the following units failed: b.service, c.mount\nFailed b"
    assert failed_in(log) == {"a.service", "b.service", "c.mount"}


def look(current: str, default: str, lock: str, kept: str) -> FakeHost:
    return FakeHost(sha256sum=[f"{current}\n{default}\n{lock}  -\n{kept}"])


KEPT = json.dumps(
    {"before": "/b", "system": NEW, "fingerprint": "new", "lock": "abc", "systems": {"new": NEW, "older": OLD}}
)


@pytest.mark.parametrize(
    ("current", "default", "lock", "kept", "seen"),
    [
        (OLD, OLD, "", "", SeenUnit(state=UnitState.ABSENT)),
        (OLD, OLD, "abc", "{", SeenUnit(state=UnitState.ABSENT)),
        (NEW, NEW, "abc", KEPT, SeenUnit(state=UnitState.RUNNING, enabled=True)),
        (NEW, OLD, "abc", KEPT, SeenUnit(state=UnitState.RUNNING, enabled=False)),
        (OLD, OLD, "abc", KEPT, SeenUnit(state=UnitState.STOPPED, detail=f"another system is active: {OLD}")),
        (NEW, NEW, "def", KEPT, SeenUnit(state=UnitState.STOPPED, detail="flake.lock was renewed")),
    ],
)
def test_the_system_as_a_unit(current: str, default: str, lock: str, kept: str, seen: SeenUnit) -> None:
    manager = NixosManager(site(look(current, default, lock, kept)))
    assert manager.observe([REF]) == {"system": seen}


@pytest.mark.parametrize(
    ("current", "kept", "notes"), [(OLD, KEPT, ["would restart a.service"]), (NEW, KEPT, []), (OLD, "", [])]
)
def test_a_plan_says_what_a_system_that_is_there_would_do(current: str, kept: str, notes: list[str]) -> None:
    host = look(current, current, "abc", kept)
    host.answers["dry-activate"] = ["would restart a.service\nactivating nothing\n"]
    assert [d.detail for d in NixosManager(site(host)).foresee([REF])] == notes


@pytest.mark.parametrize(("lock", "builds"), [("abc", False), ("def", True)])
def test_a_flake_is_built_once(lock: str, builds: bool) -> None:  # noqa: FBT001
    host = look(NEW, NEW, lock, KEPT)
    host.answers["nixos-rebuild"] = [f"{NEW}\nlabctl-build-ended 0"]
    host.answers['readlink -f "$1"\x20sh'] = [NEW]
    NixosManager(site(host)).start(REF, anew=True)
    assert ("nixos-rebuild" in host.ran) is builds
    assert json.loads(host.files["/var/lib/labctl/x/nixos/record.json"])["lock"] == lock


def test_a_build_that_fails() -> None:
    said = "error: The option `services.x' does not exist.\n at /nix/store/1-source/hosts/box/services.nix:12:3:\n"
    host = look(OLD, OLD, "", "")
    host.answers["nixos-rebuild"] = [f"{said}labctl-build-ended 1"]
    with pytest.raises(HostError) as caught:
        NixosManager(site(host)).start(REF, anew=False)
    problem = caught.value.diagnostic
    assert (problem.code, problem.summary.rpartition(": ")[2]) == ("LAB241", "see hosts/box/services.nix, line 12")
    assert "does not exist" in problem.detail


def test_nothing_to_go_back_to() -> None:
    host = look(NEW, NEW, "abc", KEPT)
    host.answers["-x"] = [Ran(1)]
    with pytest.raises(HostError) as caught:
        NixosManager(site(host)).forget(REF)
    assert caught.value.diagnostic.code == "LAB243"


def test_a_record_is_what_it_was() -> None:
    host = FakeHost()
    kept = record.Record(before="/b", system=NEW, fingerprint="f", lock="l", systems={"f": NEW})
    record.save(site(host), kept)
    text = host.files["/var/lib/labctl/x/nixos/record.json"].decode()
    assert record.look(site(look(NEW, NEW, "l", text)), UNIT.project).record == kept


def test_a_connection_of_its_own_shares_nothing_and_checks_keys() -> None:
    options = Destination(address="box", shared=False).options()
    assert options.index("ControlPath=none") < options.index("ControlMaster=auto")
    assert options.index("ControlMaster=no") < options.index("ControlMaster=auto")
    assert "StrictHostKeyChecking=yes" in options
