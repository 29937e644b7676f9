"""Steps that put content in place and take it away: models, images, secret files, files, folders."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from labctl.artefact import File, ModelFile
from labctl.diagnostics import Diagnostic
from labctl.hosts import images
from labctl.hosts.base import Check, HostError
from labctl.hosts.checks import tolerating
from labctl.hosts.connect import managers_of
from labctl.hosts.disk import unless_said_full
from labctl.hosts.events import LogLine
from labctl.hosts.models import Fetched, fetch, remove_parts
from labctl.hosts.place import Item, Load, new_staging, staged
from labctl.hosts.state import BACKUP
from labctl.hosts.work import Work
from labctl.plan.digests import context
from labctl.plan.ledger import announce, confirm_path, forget_paths, withdraw
from labctl.plan.model import Action, Change, Kind, Reason
from labctl.plan.observed import FileType, Manifest

DOWNLOADS: Final = 3
"""Model files fetched at the same time."""


def announce_all(work: Work) -> None:
    """Write down everything that is about to be made, before any of it is."""
    writes = [c for c in work.todo(Kind.FILE, Kind.SECRET, Kind.MODEL) if c.action is not Action.DELETE]
    folders = _missing_folders(work, [work.site.at(c.name) for c in writes])
    manifest = announce(work.manifest, work.changes, work.artefacts, work.units, work.groups, work.digests)
    known = tuple(sorted({*manifest.folders, *folders}))
    work.save(replace(manifest, folders=known, generation=0 if work.todo(*Kind) else manifest.generation))


def fetch_models(work: Work) -> None:
    """Fetch model files, a few at a time. Two places with one source get one download."""
    wanted = [c for c in work.todo(Kind.MODEL) if c.action is not Action.DELETE]
    sources: dict[str, list[Change]] = {}
    for change in wanted:
        sources.setdefault(_model(work, change).url, []).append(change)
    lock = threading.Lock()
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        for finished in [pool.submit(_fetch_source, work, group, lock) for group in sources.values()]:
            finished.result()


def _fetch_source(work: Work, group: list[Change], lock: threading.Lock) -> None:
    """Fetch a source to its first place and link it to the others."""
    first: str | None = None
    for change in group:
        with work.making(change):
            model, place = _model(work, change), work.site.at(change.name)
            source = model if first is None else replace(model, url=PurePosixPath(first).as_uri())
            work.site.shell.make_folders(str(PurePosixPath(place).parent))
            fetched = fetch(work.site.shell, source, place, work.emit, work.check)
            first = place
            with lock:
                _confirm_model(work, change.name, fetched)


def _confirm_model(work: Work, path: str, fetched: Fetched) -> None:
    work.save(confirm_path(work.manifest, path, digest=fetched.digest, mtime=fetched.mtime, size=fetched.size))


def _model(work: Work, change: Change) -> ModelFile:
    artefact = work.artefacts[change.name]
    if not isinstance(artefact, ModelFile):
        raise TypeError(change.name)
    return artefact


def place_files(work: Work) -> None:
    """Put secret files and files in place, all of them or, when a check on the host refuses them, none."""
    changes = [c for c in work.todo(Kind.SECRET, Kind.FILE) if c.action is not Action.DELETE]
    items = dict(_items(work, changes))
    if not items:
        return
    try:
        failed = work.placer.place(_load(work, items), work.step)
    except HostError:
        work.save(withdraw(work.manifest, work.initial, changes))
        raise
    written = [path for path in items if path not in failed]
    for change in [c for c in changes if c.name in items]:
        _placed(work, change, failed.get(change.name))
    manifest = work.manifest
    for path in written:
        manifest = confirm_path(manifest, path)
    work.save(manifest)


def _items(work: Work, changes: Iterable[Change]) -> Iterator[tuple[str, Item]]:
    """Yield what is to be put in place, with its content; what cannot be is recorded as failed."""
    for change in changes:
        artefact = work.artefacts[change.name]
        if isinstance(artefact, ModelFile):
            raise TypeError(change.name)
        work.started(change)
        try:
            _make_way(work, change, work.site.at(change.name))
            content = artefact.content if isinstance(artefact, File) else work.secret(artefact)
        except HostError as error:
            work.fail(change, error.diagnostic)
            work.finished(change)
        except OSError as error:
            _placed(work, change, f"{error.filename or change.name}: {error.strerror or error}")
        else:
            secret = not isinstance(artefact, File)
            yield change.name, Item(path=change.name, content=content, mode=artefact.mode, secret=secret)


def _placed(work: Work, change: Change, problem: str | None) -> None:
    if problem is None:
        work.done.append(change.address)
    else:
        summary = f"`{change.address}` could not be changed"
        refused = Diagnostic(code="LAB107", summary=summary, detail=problem, path=change.origin or None)
        work.fail(change, unless_said_full(change.host, problem, refused))
    work.finished(change)


def _load(work: Work, items: Mapping[str, Item]) -> Load:
    """Return the files with the checks that managers make of those among them which define units."""
    staging = new_staging(work.site)
    managers = managers_of(replace(work.site, folder=staged(staging)))
    checks: list[Check] = []
    seen_by_checks: set[str] = set()
    checked: set[str] = set()
    for name in sorted({u.manager for u in work.units.values()}):
        projects = sorted({u.project for u in work.units.values() if u.manager == name} & items.keys())
        found = managers[name].checks(projects) if projects else ()
        checks += found
        seen_by_checks |= {str(PurePosixPath(p).parent) for p in projects if found}
        checked.update(projects)
    # A staged file's own path ends with the one that it is to have: complaints about it are to be heard.
    coming = [work.site.at(path) for path in items if path not in checked]
    links = [p for p, a in work.artefacts.items() if _beside(p, seen_by_checks) and not isinstance(a, ModelFile)]
    return Load(
        staging=staging,
        items=tuple(items.values()),
        links=tuple(path for path in links if path not in items),
        checks=tuple(tolerating(checks, coming)),
    )


def _beside(path: str, folders: set[str]) -> bool:
    """Whether a path lies in or below one of some folders."""
    return any(str(parent) in folders for parent in PurePosixPath(path).parents)


def _make_way(work: Work, change: Change, place: str) -> None:
    """Keep a copy of a file that is not ours; refuse to replace a folder."""
    if change.reason is not Reason.FOREIGN:
        return
    seen = work.site.shell.look([place], digest=lambda *_: False).get(place)
    if seen is not None and seen.type is FileType.FOLDER:
        raise HostError(Diagnostic(code="LAB108", summary=f"`{place}` is a folder, and the lab wants a file there"))
    old = work.site.shell.read(place)
    if old is not None:
        copy = work.site.state(f"{BACKUP}/{change.name}")
        work.site.shell.make_folders(str(PurePosixPath(copy).parent))
        work.site.shell.write(copy, old, 0o600)
        work.emit(LogLine(host=change.host, unit="", text=f"kept what was at {place} as {copy}"))


def build_images(work: Work) -> None:
    """Build images whose context changed. Runs after the files: they are the context."""
    by_reference = {i.reference: i for i in work.tree.images}
    for change in work.todo(Kind.IMAGE):
        if change.action is Action.DELETE:
            continue
        image = by_reference[change.name]
        with work.making(change):
            digest = context(work.tree, image)
            known = {**work.manifest.images, image.reference: digest}
            work.save(replace(work.manifest, images=known))
            images.build(work.site, image, digest, lambda text: _log(work, text), work.check)


def _log(work: Work, text: str) -> None:
    work.emit(LogLine(host=work.site.host, unit="", text=text))


def prune(work: Work) -> None:
    """Remove what the manifest lists and the plan deletes, then folders that are empty and ours."""
    gone = [c for c in work.todo(Kind.FILE, Kind.SECRET, Kind.MODEL) if c.action is Action.DELETE]
    removed = []
    for change in gone:
        if change.name in work.manifest.entries:
            with work.making(change):
                work.site.shell.remove([work.site.at(change.name)])
                if change.kind is Kind.MODEL:
                    remove_parts(work.site.shell, work.site.at(change.name))
                removed.append(change.name)
    manifest = forget_paths(work.manifest, removed)
    for change in [c for c in work.todo(Kind.IMAGE) if c.action is Action.DELETE]:
        with work.making(change):
            images.remove(work.site, change.name)
            manifest = _without_image(manifest, change.name)
    work.save(manifest)
    remove_empty_folders(work)


def _without_image(manifest: Manifest, reference: str) -> Manifest:
    return replace(manifest, images={r: d for r, d in manifest.images.items() if r != reference})


def remove_empty_folders(work: Work) -> None:
    """Remove empty folders that labctl made, the deepest first, and forget those that are gone."""
    kept = [f for f in sorted(work.manifest.folders, reverse=True) if not work.site.shell.remove_empty(f)]
    work.save(replace(work.manifest, folders=tuple(sorted(kept))))


def _missing_folders(work: Work, places: Iterable[str]) -> set[str]:
    """Return the folders that have to be made for some paths."""
    above = {str(p) for place in places for p in PurePosixPath(place).parents}
    there = work.site.shell.look(sorted(above), digest=lambda *_: False)
    return above - there.keys()
