"""A step of an apply: the images of containers that are about to start are on the host before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from labctl.artefact import Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts import images
from labctl.hosts.base import HostError
from labctl.hosts.events import LogLine
from labctl.hosts.work import Work
from labctl.plan.ledger import withdraw
from labctl.plan.model import Action, Kind


def pull_images(work: Work) -> None:
    """Pull, once each, the images that the plan's containers need and that are not there.

    HostError when one cannot be had: nothing has been changed then, and nothing is.
    """
    needed = _needed(work)
    there = images.look(work.site, needed)
    problems = []
    for reference, unit in needed.items():
        if reference in there or images.present(work.site.shell, reference):
            continue
        work.step()
        work.emit(LogLine(host=work.site.host, unit="", text=f"pulling {reference}"))
        try:
            images.pull(work.site, reference, work.emit, work.check)
        except HostError as error:
            problems.append(replace(error.diagnostic, path=unit.origin or None))
    if problems:
        changes = [c for c in work.todo(Kind.SECRET, Kind.FILE) if c.action is not Action.DELETE]
        work.save(withdraw(work.manifest, work.initial, changes))
        raise HostError(_together(problems))


def _needed(work: Work) -> Mapping[str, Unit]:
    """Return the images that are needed, in the plan's order, with the first unit that needs each."""
    needed: dict[str, Unit] = {}
    for change in work.todo(Kind.UNIT):
        unit = work.units.get(change.name)
        if change.action is not Action.DELETE and unit is not None and unit.image is not None:
            needed.setdefault(unit.image, unit)
    return needed


def _together(problems: list[Diagnostic]) -> Diagnostic:
    """Return the first of some problems, with the others below it."""
    first, *others = problems
    return replace(first, detail="\n".join([first.detail, *(f"also: {d.summary}" for d in others)]).strip())
