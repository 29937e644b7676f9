"""The manifest as a ledger: what is announced before it is done, and confirmed afterwards.

Because every path and unit is announced first, an apply that is killed at any moment leaves nothing that the next one
does not know of: an announced path is owned, whichever of its two contents it has; an announced unit is started again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from labctl.artefact import Artefact, File, ModelFile, SecretFile, Unit
from labctl.plan.digests import as_input, shape, wanted
from labctl.plan.files import kind_of
from labctl.plan.model import Action, Change, Kind
from labctl.plan.observed import Entry, EntryKind, Manifest, SecretDigests, UnitRecord

_PATHS = frozenset({Kind.FILE, Kind.SECRET, Kind.MODEL})


def announce(
    manifest: Manifest,
    changes: Sequence[Change],
    artefacts: Mapping[str, Artefact],
    units: Mapping[str, Unit],
    groups: Mapping[str, str],
    secrets: SecretDigests | None,
) -> Manifest:
    """Return the manifest that has to be on disk before the first of one host's changes is made."""
    entries, records = dict(manifest.entries), dict(manifest.units)
    for change in changes:
        if not change.action.changes or change.action is Action.DELETE:
            continue
        if change.kind in _PATHS:
            old = manifest.entries.get(change.name)
            entries[change.name] = _announced(artefacts[change.name], old, secrets)
        elif change.kind is Kind.UNIT:
            unit, known = units[change.name], manifest.units.get(change.name)
            new = known or UnitRecord(
                manager=unit.manager, id=unit.id, project=unit.project, group=groups.get(change.name, "")
            )
            records[change.name] = replace(new, pending=True)
    return replace(manifest, entries=entries, units=records)


def withdraw(manifest: Manifest, before: Manifest, changes: Iterable[Change]) -> Manifest:
    """Return the manifest once it is clear that announced files were not touched and that no unit will be.

    Args:
        manifest: as announced.
        before: as it was before that.
        changes: the files' changes. What was done meanwhile (models, folders) stays.
    """
    entries = dict(manifest.entries)
    for change in changes:
        old = before.entries.get(change.name)
        if old is None:
            entries.pop(change.name, None)
        else:
            entries[change.name] = old
    return replace(manifest, entries=entries, units=before.units, generation=before.generation)


def confirm_path(
    manifest: Manifest, path: str, *, digest: str | None = None, mtime: int | None = None, size: int | None = None
) -> Manifest:
    """Return the manifest once a path was written; a model has the digest that it turned out with."""
    entry = manifest.entries[path]
    known = replace(entry, previous=(), digest=digest or entry.digest, mtime=mtime, size=size or entry.size)
    return replace(manifest, entries={**manifest.entries, path: known})


def confirm_unit(
    manifest: Manifest,
    unit: Unit,
    group: str,
    artefacts: Mapping[str, Artefact],
    secrets: SecretDigests | None,
) -> Manifest:
    """Return the manifest once a unit runs (or was created) from its present definition and files."""
    record = UnitRecord(
        manager=unit.manager,
        id=unit.id,
        project=unit.project,
        fingerprint=unit.fingerprint,
        inputs={path: as_input(artefacts[path], secrets) for path in unit.files if path in artefacts},
        group=group,
        check=unit.check,
    )
    return replace(manifest, units={**manifest.units, unit.name: record})


def forget_units(manifest: Manifest, names: Iterable[str]) -> Manifest:
    """Return the manifest once units were removed."""
    gone = set(names)
    return replace(manifest, units={n: r for n, r in manifest.units.items() if n not in gone})


def forget_paths(manifest: Manifest, paths: Iterable[str]) -> Manifest:
    """Return the manifest once paths were removed."""
    gone = set(paths)
    return replace(manifest, entries={p: e for p, e in manifest.entries.items() if p not in gone})


def _announced(artefact: Artefact, old: Entry | None, secrets: SecretDigests | None) -> Entry:
    previous = ("",) if old is None else tuple(dict.fromkeys((old.digest, *old.previous)))
    digest, kind = wanted(artefact, secrets) or "", EntryKind(kind_of(artefact))
    match artefact:
        case File():
            return Entry(kind=kind, digest=digest, mode=artefact.mode, previous=previous)
        case SecretFile():
            return Entry(kind=kind, digest=digest, mode=artefact.mode, previous=previous, shape=shape(artefact))
        case ModelFile():
            return Entry(kind=kind, digest=digest, previous=previous, shape=artefact.url, size=artefact.size)
