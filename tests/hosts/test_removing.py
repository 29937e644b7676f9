"""Units that the lab no longer has are stopped, though somebody starts them meanwhile. The manager is a fake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labctl.artefact import HostRoot, Manager, Tree
from labctl.diagnostics import Diagnostic
from labctl.hosts.activate import remove_units
from labctl.hosts.base import HostError, Ref, Site
from labctl.hosts.local import LocalShell
from labctl.hosts.work import Work, never_stops
from labctl.plan.model import Action, Change, Kind, Reason
from labctl.plan.observed import Manifest, UnitRecord
from labctl.secrets import Secrets

UNITS = ("a", "gateway", "z")


class Fake:
    """A manager that cannot stop some units: ``z`` as long as the gateway starts it again."""

    manager = Manager.SYSTEMD

    def __init__(self, stuck: Sequence[str]) -> None:
        self.up, self.stuck, self.asked = set(UNITS), stuck, list[str]()

    def forget(self, ref: Ref) -> None:
        self.asked.append(ref.name)
        if ref.name in self.stuck or (ref.name == "z" and "gateway" in self.up):
            raise HostError(Diagnostic(code="LAB114", summary="canceled"))
        self.up.discard(ref.name)


def removed(folder: Path, stuck: Sequence[str]) -> tuple[Fake, Work]:
    fake: Any = Fake(stuck)
    record = {name: UnitRecord(manager=Manager.SYSTEMD, id=f"{name}.service", project="p") for name in UNITS}
    work = Work(
        site=Site(root=HostRoot(host="h", root="/", state="s"), shell=LocalShell(), folder=str(folder)),
        managers={Manager.SYSTEMD: fake},
        changes=[
            Change(host="h", kind=Kind.UNIT, name=n, action=Action.DELETE, reason=Reason.NO_LONGER_WANTED)
            for n in UNITS
        ],
        tree=Tree(),
        secrets=Secrets(),
        digests={},
        manifest=Manifest(units=record),
        placer=Any,  # type: ignore[arg-type]  # no file is placed
        emit=lambda _: None,
        check=never_stops,
        destroy=True,
    )
    remove_units(work)
    return fake, work


def test_what_a_gateway_starts_is_stopped_when_the_gateway_has_gone(tmp_path: Path) -> None:
    fake, work = removed(tmp_path, stuck=())
    assert fake.asked == ["z", "gateway", "a", "z"]
    assert (work.failed, work.broken, set(work.manifest.units)) == ({}, set(), set())
    assert sorted(work.done) == ["h/a", "h/gateway", "h/z"]


@pytest.mark.parametrize(("stuck", "times"), [("a", 1), ("z", 2)])
def test_what_cannot_be_stopped_is_said_and_kept_in_the_books(tmp_path: Path, stuck: str, times: int) -> None:
    """The last one is not tried again: nothing went after it."""
    fake, work = removed(tmp_path, stuck=(stuck,))
    assert fake.asked.count(stuck) == times
    assert (set(work.failed), set(work.manifest.units)) == ({f"h/{stuck}"}, {stuck})
