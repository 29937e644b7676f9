"""A host made of values: carries out a plan through the ledger, step by step, and can be killed before any step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from labctl.artefact import Artefact, File, ModelFile, SecretFile, Tree
from labctl.plan.diff import diff
from labctl.plan.digests import wanted
from labctl.plan.ledger import announce, confirm_path, confirm_unit, forget_paths, forget_units
from labctl.plan.model import Action, Change, Kind, Plan
from labctl.plan.observed import (
    Manifest,
    Observed,
    SecretDigests,
    SeenFile,
    SeenHost,
    SeenUnit,
    UnitState,
)
from labctl.workload import Start

HOST = "ash"


class Killed(Exception):  # noqa: N818 - not an error
    """The plug was pulled."""


@dataclass
class Host:
    """Files by path as (digest, mode); units by name as a state; the manifest on its disk."""

    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    units: dict[str, UnitState] = field(default_factory=dict)
    manifest: Manifest = field(default_factory=Manifest)
    touched: list[str] = field(default_factory=list)
    """What was written, removed or started, in order."""
    truth: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    """What each unit was really started with: its fingerprint, and the digests that its files then had."""
    fuel: int = 1_000_000
    """Steps until it is killed."""

    def seen(self) -> Observed:
        """Look at it."""
        files = {p: SeenFile(digest=d, mode=m) for p, (d, m) in self.files.items()}
        units = {n: SeenUnit(state=s) for n, s in self.units.items()}
        return Observed({HOST: SeenHost(host=HOST, manifest=self.manifest, files=files, units=units)})

    def plan(self, tree: Tree, secrets: SecretDigests, *, destroy: bool = False) -> Plan:
        """Plan for it."""
        return diff(tree, self.seen(), secrets, destroy=destroy, data=destroy)

    def apply(self, tree: Tree, secrets: SecretDigests, *, destroy: bool = False) -> Plan:
        """Do what ``labctl.hosts`` does, in the same order; Killed when the fuel ends."""
        plan = self.plan(tree, secrets, destroy=destroy)
        artefacts = {a.path: a for a in tree.artefacts}
        units = {u.name: u for u in tree.units}
        self.step()
        self.manifest = announce(self.manifest, plan.changes, artefacts, units, {}, secrets)
        for change in plan.todo:
            if change.kind is Kind.UNIT:
                self.unit(change, tree, artefacts, secrets)
            elif change.action is Action.DELETE:
                self.step()
                self.touched.append(change.name)
                self.files.pop(change.name, None)
                self.step()
                self.manifest = forget_paths(self.manifest, [change.name])
            else:
                self.write(artefacts[change.name], secrets)
        return plan

    def write(self, artefact: Artefact, secrets: SecretDigests) -> None:
        """Write a path, then confirm it."""
        self.step()
        self.touched.append(artefact.path)
        digest = wanted(artefact, secrets) or "whatever came"
        mode = artefact.mode if isinstance(artefact, File | SecretFile) else 0o644
        self.files[artefact.path] = (digest, mode)
        self.step()
        size = artefact.size if isinstance(artefact, ModelFile) else None
        self.manifest = confirm_path(self.manifest, artefact.path, digest=digest, size=size)

    def unit(self, change: Change, tree: Tree, artefacts: dict[str, Artefact], secrets: SecretDigests) -> None:
        """Act on a unit, then confirm it."""
        self.step()
        self.touched.append(change.name)
        if change.action is Action.DELETE:
            self.units.pop(change.name, None)
            self.step()
            self.manifest = forget_units(self.manifest, [change.name])
            return
        unit = next(u for u in tree.units if u.name == change.name)
        runs = change.action.runs or (change.action is Action.CREATE and unit.start is not Start.ON_DEMAND)
        up = UnitState.FINISHED if unit.start is Start.ONCE else UnitState.RUNNING
        self.units[unit.name] = up if runs else UnitState.STOPPED
        self.truth[unit.name] = (unit.fingerprint, {p: self.files[p][0] for p in unit.files})
        self.step()
        self.manifest = confirm_unit(self.manifest, unit, "", artefacts, secrets)

    def step(self) -> None:
        """Burn fuel."""
        if self.fuel <= 0:
            raise Killed
        self.fuel -= 1

    def refuelled(self, fuel: int = 1_000_000) -> Host:
        """Return the same host, switched on again."""
        return replace(self, fuel=fuel, touched=[])
