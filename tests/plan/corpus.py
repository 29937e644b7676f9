"""Reads the plan cases: one TOML file each under ``cases/``. A new case needs no Python.

``[wanted]`` files, secrets, models, images and units; ``[manifest]`` what labctl left there; ``[seen]`` what is there
now; ``expected`` the plan as text. Contents stand for their digests.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.artefact import Artefact, File, HostRoot, Image, Manager, ModelFile, SecretFile, Tree, Unit
from labctl.diagnostics import Diagnostic
from labctl.plan.digests import as_input, context, shape
from labctl.plan.observed import (
    Entry,
    EntryKind,
    FileType,
    Manifest,
    Observed,
    SecretDigests,
    SeenFile,
    SeenHost,
    SeenUnit,
    UnitRecord,
    UnitState,
)
from labctl.workload import SecretRef, SecretText, Start

HOST = "ash"
FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """One case, read."""

    tree: Tree
    observed: Observed
    secrets: SecretDigests | None
    expected: str
    options: dict[str, bool]


def digest(text: str) -> str:
    """Return what stands for a content."""
    return hashlib.sha256(text.encode()).hexdigest()


def names() -> list[str]:
    """Return the names of all cases."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def read(name: str) -> Case:
    """Read one case."""
    data = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    tree = _tree(data.get("wanted", {}))
    secrets = data.get("secrets", {})
    digests = None if secrets is False else {(HOST, p): digest(t) for p, t in secrets.items()}
    observed = Observed({HOST: _host(data, tree, digests)})
    return Case(tree, observed, digests, data.get("expected", "").strip("\n"), data.get("options", {}))


def _tree(wanted: dict[str, Any]) -> Tree:
    items: list[Any] = [HostRoot(host=HOST, root="/", state="var/lib/labctl", managers=(Manager.COMPOSE,))]
    for path, text in wanted.get("files", {}).items():
        items.append(File(host=HOST, path=path, content=text.encode()))
    for path, entries in wanted.get("secrets", {}).items():
        refs = {n: SecretText((SecretRef(s),)) for n, s in entries.items()}
        items.append(SecretFile(host=HOST, path=path, entries=refs))
    for path, model in wanted.get("models", {}).items():
        items.append(ModelFile(host=HOST, path=path, **{**model, **_pinned(model)}))
    for reference, folder in wanted.get("images", {}).items():
        items.append(Image(host=HOST, reference=reference, context=folder))
    items += [_unit(name, value) for name, value in wanted.get("units", {}).items()]
    return Tree.of(items)


def _pinned(model: dict[str, Any]) -> dict[str, Any]:
    return {"sha256": digest(model["sha256"])} if "sha256" in model else {}


def _unit(name: str, value: dict[str, Any]) -> Unit:
    return Unit(
        host=HOST,
        name=name,
        id=value.get("id", name),
        manager=Manager(value.get("manager", "compose")),
        project=value.get("project", "compose.yaml"),
        fingerprint=value.get("fingerprint", "one"),
        files=tuple(value.get("files", ())),
        after=tuple(value.get("after", ())),
        start=Start(value.get("start", "always")),
        turns=value.get("turns"),
    )


def _host(data: dict[str, Any], tree: Tree, digests: SecretDigests | None) -> SeenHost:
    seen, manifest = data.get("seen", {}), data.get("manifest", {})
    if "problem" in seen:
        problem = Diagnostic(code="LAB104", summary=seen["problem"])
        return SeenHost(host=HOST, complete=False, why=(problem,))
    artefacts = {a.path: a for a in tree.artefacts}
    return SeenHost(
        host=HOST,
        manifest=Manifest(
            entries={p: _entry(p, v, artefacts) for p, v in manifest.get("entries", {}).items()},
            units={n: _record(v, artefacts, digests) for n, v in manifest.get("units", {}).items()},
            images={r: _context(v, tree, r) for r, v in manifest.get("images", {}).items()},
        ),
        files={p: _seen_file(v) for p, v in seen.get("files", {}).items()},
        units={n: _seen_unit(v) for n, v in seen.get("units", {}).items()},
        images={r: _context(v, tree, r) for r, v in seen.get("images", {}).items()},
    )


def _context(value: str, tree: Tree, reference: str) -> str:
    for image in tree.images:
        if image.reference == reference and value == "current":
            return context(tree, image)
    return value


def _entry(path: str, value: dict[str, Any] | str, artefacts: dict[str, Artefact]) -> Entry:
    value = {"text": value} if isinstance(value, str) else value
    artefact = artefacts.get(path)
    known = shape(artefact) if isinstance(artefact, SecretFile) else ""
    return Entry(
        kind=EntryKind(value.get("kind", "file")),
        digest=digest(value["text"]),
        mode=int(value.get("mode", "644"), 8),
        previous=tuple(digest(t) for t in value.get("previous", ())),
        shape=value.get("shape", known),
        size=value.get("size"),
    )


def _record(value: dict[str, Any], artefacts: dict[str, Artefact], digests: SecretDigests | None) -> UnitRecord:
    inputs = {p: as_input(artefacts[p], digests) for p in value.get("as_wanted", ())}
    inputs |= {p: digest(t) for p, t in value.get("inputs", {}).items()}
    return UnitRecord(
        manager=Manager(value.get("manager", "compose")),
        id=value.get("id", "web"),
        project=value.get("project", "compose.yaml"),
        fingerprint=value.get("fingerprint", "one"),
        inputs=inputs,
        pending=value.get("pending", False),
    )


def _seen_file(value: dict[str, Any] | str) -> SeenFile:
    value = {"text": value} if isinstance(value, str) else value
    text = value.get("text", "")
    return SeenFile(
        type=FileType(value.get("type", "file")),
        digest=digest(text),
        mode=int(value.get("mode", "644"), 8),
        size=value.get("size", len(text)),
        text=text if value.get("shown", True) else None,
    )


def _seen_unit(value: dict[str, Any] | str) -> SeenUnit:
    value = {"state": value} if isinstance(value, str) else value
    return SeenUnit(
        state=UnitState(value["state"]),
        fingerprint=value.get("fingerprint"),
        image=value.get("image"),
        enabled=value.get("enabled"),
    )
