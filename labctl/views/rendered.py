"""What a lab renders to: as a listing, as changes of a folder, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labctl.artefact import Artefact, File, ModelFile, Object, Tree
from labctl.folder import Changes
from labctl.quantity import format_size


def summary_text(tree: Tree) -> str:
    """Return a listing of the tree, by host."""
    lines: list[str] = []
    for host in tree.hosts:
        part = tree.of_host(host)
        root = part.roots[host].root
        cluster = part.roots[host].cluster
        lines.append(f"{host}  ({f'namespace {cluster.namespace}' if cluster else f'root {root}'})")
        lines += [f"  {o.wave:>5}  {_object_size(o):>9}  {o.path}" for o in part.objects]
        lines += [f"  {_mode(a)}  {_size(a):>9}  {a.path}" for a in part.artefacts]
        lines += [f"  image {i.reference}  built from {i.context}" for i in part.images]
        lines += [f"  {u.manager} {u.id}{_after(u.after)}" for u in part.units]
    return "\n".join([*lines, "", "Write it to a folder with `--out DIR`."])


def _after(names: tuple[str, ...]) -> str:
    return f"  after {', '.join(names)}" if names else ""


def _mode(artefact: Artefact) -> str:
    return "model" if isinstance(artefact, ModelFile) else f"{artefact.mode:05o}"


def _size(artefact: Artefact) -> str:
    match artefact:
        case File():
            return format_size(len(artefact.content))
        case ModelFile():
            return format_size(artefact.size) if artefact.size else ""
        case _:
            return "secret"


def _object_size(item: Object) -> str:
    return "secret" if item.entries else format_size(len(item.content))


def changes_text(changes: Changes, folder: Path, *, done: bool) -> str:
    """Return what was, or would be, written."""
    if not changes.any:
        return f"{folder} is what the lab renders to ({changes.same} files)."
    lines = [f"+ {p}" for p in changes.new] + [f"~ {p}" for p in changes.changed] + [f"- {p}" for p in changes.extra]
    counts = f"{len(changes.new)} new, {len(changes.changed)} changed, {len(changes.extra)} removed"
    counts += f", {changes.same} unchanged"
    if done:
        return f"{folder}: {counts}"
    return "\n".join([*lines, changes.diff.rstrip("\n"), f"{folder} differs: {counts}"])


def rendered_json(tree: Tree) -> dict[str, Any]:
    """Return the tree as plain data: every path with its digest, every unit with what it waits for."""
    return {
        "digest": tree.digest(),
        "files": [
            {"host": f.host, "path": f.path, "mode": f"{f.mode:04o}", "sha256": f.digest, "bytes": len(f.content)}
            for f in tree.files()
        ],
        "models": [
            {"host": m.host, "path": m.path, "url": m.url, "sha256": m.sha256}
            for m in tree.artefacts
            if isinstance(m, ModelFile)
        ],
        "units": [
            {"host": u.host, "name": u.name, "manager": u.manager, "id": u.id, "after": list(u.after), "start": u.start}
            for u in tree.units
        ],
        "objects": [
            {"host": o.host, "path": o.path, "kind": o.value["kind"], "wave": o.wave, "sha256": o.digest}
            for o in tree.objects
        ],
        "images": [{"host": i.host, "reference": i.reference, "context": i.context} for i in tree.images],
    }
