"""Looking at a host: files in one batch, units in one question per manager."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from labctl.artefact import Artefact, File, ModelFile, SecretFile, Tree
from labctl.diagnostics import Diagnostic
from labctl.hosts import images
from labctl.hosts.base import HostError, Ref, Site, UnitManager
from labctl.hosts.health import probe_running
from labctl.hosts.state import keyed, read_key, read_manifest
from labctl.hosts.watching import Foreseeing
from labctl.plan.observed import Entry, EntryKind, Facts, Manifest, SeenFile, SeenGpu, SeenHost
from labctl.secrets import Redactor

AT_ONCE: Final = 8
"""Questions to one host at the same time."""
SHORT_TEXT: Final = 256 << 10
"""Bytes up to which a file's old content is shown in a plan."""
UNKEYED: Final = "no key"
"""Digest of a secret file on a host that lost its key: equal to nothing."""

Managers = Mapping[str, UnitManager]


class SiteObserver:
    """``Observer`` over a shell and the host's managers."""

    def __init__(self, site: Site, managers: Managers, redactor: Redactor | None = None) -> None:
        self._site, self._managers, self._redact = site, managers, redactor or Redactor()

    def observe(self, tree: Tree) -> SeenHost:
        """Look at everything that the tree wants and that labctl owns. Problems make the host incomplete."""
        try:
            return self._observe(tree)
        except HostError as error:
            problems: tuple[Diagnostic, ...] = (error.diagnostic,)
        except OSError as error:
            problems = (_unreadable(self._site, error),)
        return SeenHost(host=self._site.host, complete=False, why=problems)

    def _observe(self, tree: Tree) -> SeenHost:
        """Ask everything at once that does not need another answer first: on a far host every answer takes a while."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            facts, key = pool.submit(self._facts), pool.submit(read_key, self._site)
            manifest = read_manifest(self._site)
            refs = refs_of(tree, manifest, self._managers)
            references = {i.reference for i in tree.images} | manifest.images.keys()
            missing = [pool.submit(self._managers[n].missing) for n in self._needed(refs, references)]
            files = pool.submit(self._files, tree, manifest, key)
            units = [pool.submit(self._managers[n].observe, part) for n, part in _by_manager(refs).items()]
            notes = [pool.submit(self._notes, n, part) for n, part in _by_manager(refs).items()]
            found = pool.submit(images.look, self._site, references)
            lacking = tuple(d for future in missing if (d := future.result()) is not None)
            if lacking:
                return SeenHost(host=self._site.host, complete=False, why=lacking, manifest=manifest)
            seen = {name: unit for future in units for name, unit in future.result().items()}
            return SeenHost(
                host=self._site.host,
                why=tuple(note for future in notes for note in future.result()),
                manifest=manifest,
                files=files.result(),
                units=probe_running(self._site, tree.units, seen),
                images=found.result(),
                facts=facts.result(),
            )

    def _notes(self, name: str, refs: Sequence[Ref]) -> Sequence[Diagnostic]:
        manager = self._managers[name]
        return [*manager.foresee(refs)] if isinstance(manager, Foreseeing) else []

    def _facts(self) -> Facts:
        told = self._site.shell.facts(self._site.folder)
        gpus = tuple(SeenGpu(**card) for card in told["cards"])
        free = {path: space["free"] for path, space in told["disks"].items()}
        plain = {name: told[name] for name in ("arch", "system", "kernel", "memory", "cores", "groups", "bus")}
        return Facts(**plain, features=frozenset(told["features"]), gpus=gpus, free=free)

    def _needed(self, refs: Sequence[Ref], references: Collection[str]) -> list[str]:
        """Return the managers without which the host cannot be looked at."""
        return sorted({*_by_manager(refs), *(["compose"] if references else [])})

    def _files(self, tree: Tree, manifest: Manifest, known: Future[bytes | None]) -> dict[str, SeenFile]:
        wanted = {a.path: a for a in tree.artefacts}
        paths = sorted(wanted.keys() | manifest.entries.keys())
        at = {self._site.at(p): p for p in paths}

        def digest(path: str, seen: SeenFile) -> bool:
            return _needs_digest(wanted.get(at[path]), manifest.entries.get(at[path]), seen)

        looked = self._site.shell.look(at, digest=digest)
        key = known.result()
        return {
            at[path]: self._complete(at[path], seen, wanted.get(at[path]), manifest.entries.get(at[path]), key)
            for path, seen in looked.items()
        }

    def _complete(
        self, path: str, seen: SeenFile, artefact: Artefact | None, entry: Entry | None, key: bytes | None
    ) -> SeenFile:
        """Turn a secret's digest into the keyed one, a known model's into the recorded one; add short texts."""
        secret = isinstance(artefact, SecretFile) or (entry is not None and entry.kind is EntryKind.SECRET)
        if secret and seen.digest is not None:
            return replace(seen, digest=UNKEYED if key is None else keyed(key, seen.digest))
        if entry is not None and seen.digest is None and _unchanged_model(entry, seen):
            return replace(seen, digest=entry.digest or None)
        if isinstance(artefact, File) and seen.digest not in {None, artefact.digest} and seen.size <= SHORT_TEXT:
            return replace(seen, text=self._text(path))
        return seen

    def _text(self, path: str) -> str | None:
        content = self._site.shell.read(self._site.at(path))
        try:
            return None if content is None else self._redact(content.decode())
        except UnicodeDecodeError:
            return None


def refs_of(tree: Tree, manifest: Manifest, managers: Managers) -> list[Ref]:
    """Return every unit of a host, wanted or recorded, as managers know them.

    A recorded unit whose wanted form is another one (another manager or id) is looked at in its recorded form.
    """
    refs: dict[str, Ref] = {}
    contents = {f.path: f.content for f in tree.files()}
    for unit in tree.units:
        group = managers[unit.manager].group(unit, contents.get(unit.project, b""))
        refs[unit.name] = Ref(name=unit.name, id=unit.id, project=unit.project, group=group, unit=unit)
    for name, record in manifest.units.items():
        wanted = refs.get(name)
        same = wanted is not None and wanted.unit is not None
        if same and wanted is not None and wanted.unit is not None:
            same = (wanted.unit.manager, wanted.id) == (record.manager, record.id)
        if same and wanted is not None:
            refs[name] = replace(wanted, record=record)
        else:
            refs[name] = Ref(name=name, id=record.id, project=record.project, group=record.group, record=record)
    return [refs[name] for name in sorted(refs)]


def _by_manager(refs: Sequence[Ref]) -> dict[str, list[Ref]]:
    found: dict[str, list[Ref]] = {}
    for ref in refs:
        found.setdefault(_manager_of(ref), []).append(ref)
    return found


def _manager_of(ref: Ref) -> str:
    if ref.unit is not None:
        return ref.unit.manager
    if ref.record is not None:
        return ref.record.manager
    raise ValueError(ref.name)


def _needs_digest(artefact: Artefact | None, entry: Entry | None, seen: SeenFile) -> bool:
    """Models are big: hashed only when their digest is pinned and the recorded one cannot be trusted."""
    if isinstance(artefact, ModelFile):
        known = entry is not None and entry.digest and _unchanged_model(entry, seen)
        return artefact.sha256 is not None and not known
    return entry is None or entry.kind is not EntryKind.MODEL


def _unchanged_model(entry: Entry, seen: SeenFile) -> bool:
    recorded = (entry.size, entry.mtime)
    return entry.kind is EntryKind.MODEL and entry.confirmed and recorded == (seen.size, seen.mtime)


def _unreadable(site: Site, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="LAB101",
        summary=f"`{site.host}` cannot be looked at: {error.strerror or error}",
        detail=str(error.filename or ""),
        hint="run labctl as a user who may read and write there, or choose another folder for this host's root",
    )
