"""The last known state of a lab's hosts, kept on this machine for ``plan --offline``. It holds no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from labctl.artefact import Image, Tree
from labctl.plan.objects import object_name
from labctl.plan.observed import EntryKind, Manifest, Observed, SeenFile, SeenHost, SeenObject, SeenUnit, UnitState
from labctl.plan.turns import Turn
from labctl.plan.wire import WireError, manifest_from_json, manifest_to_json

FOLDER: Final = "labctl"
_TURNS: Final = ".turns.json"
"""No host is called so."""


def state_folder() -> Path:
    """Return labctl's own folder for this user: ``$XDG_STATE_HOME/labctl`` or ``~/.local/state/labctl``."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / FOLDER


def remember(lab: str, seen: Observed) -> None:
    """Keep what was seen on the hosts that could be seen."""
    folder = state_folder() / "known" / lab
    for host in seen.hosts.values():
        path = folder / f"{host.host}.json"
        if host.complete and host.manifest.entries:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, manifest_to_json(host.manifest))
        elif host.complete:
            path.unlink(missing_ok=True)
    tidy(folder)


def remember_turns(lab: str, turns: Iterable[Turn]) -> None:
    """Keep which members of exclusive groups were switched to by hand."""
    folder, found = state_folder() / "known" / lab, [asdict(turn) for turn in turns]
    if found:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _TURNS, json.dumps(found))
    else:
        (folder / _TURNS).unlink(missing_ok=True)
        tidy(folder)


def known_turns(lab: str) -> tuple[Turn, ...]:
    """Return which members of exclusive groups were switched to, when an apply or switch last ran from here."""
    try:
        return tuple(Turn(**value) for value in json.loads((state_folder() / "known" / lab / _TURNS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return ()


def tidy(folder: Path) -> None:
    """Remove a folder of labctl's own state and those above it, up to the state folder itself, while they are empty."""
    top = state_folder()
    while folder.is_relative_to(top) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def last_known(lab: str, tree: Tree) -> Observed:
    """Return the hosts as they were when an apply last left them; a host that never had one is empty."""
    return Observed({host: _as_left(host, _manifest(lab, host), tree) for host in tree.hosts})


def _manifest(lab: str, host: str) -> Manifest:
    path = state_folder() / "known" / lab / f"{host}.json"
    try:
        return manifest_from_json(path.read_bytes())
    except (OSError, WireError):
        return Manifest()


def _as_left(host: str, manifest: Manifest, tree: Tree) -> SeenHost:
    return SeenHost(
        host=host,
        manifest=manifest,
        files={
            path: SeenFile(digest=entry.digest, mode=entry.mode, size=entry.size or 0, mtime=entry.mtime or 0)
            for path, entry in manifest.entries.items()
        },
        units={name: _up(record.fingerprint) for name, record in manifest.units.items()},
        images={i.reference: manifest.images[i.reference] for i in _built(tree, host, manifest)},
        objects=_objects(host, manifest, tree),
    )


def _objects(host: str, manifest: Manifest, tree: Tree) -> dict[str, SeenObject]:
    """Return a cluster's objects as if the server had been asked: the same where they were rendered the same."""
    wanted = {object_name(o, tree.roots[host]): o.digest for o in tree.objects if o.host == host}
    return {
        name: SeenObject(digest=entry.digest, same=wanted.get(name) == entry.digest)
        for name, entry in manifest.entries.items()
        if entry.kind is EntryKind.OBJECT
    }


def _up(fingerprint: str) -> SeenUnit:
    return SeenUnit(state=UnitState.RUNNING if fingerprint else UnitState.STOPPED)


def _built(tree: Tree, host: str, manifest: Manifest) -> Iterable[Image]:
    return [i for i in tree.images if i.host == host and i.reference in manifest.images]
