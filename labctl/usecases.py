"""What labctl does, without a terminal: each function takes values and returns values, and knows no typer and no rich.

The way of the data: a path becomes a located document, the document a lab, the lab a placed lab, the placed lab a tree.
Every step keeps its diagnostics; ``Loaded`` locates them in the file once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from labctl.assets import Assets
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.document import Document
from labctl.document.read import find_lab, read_document
from labctl.knowledge import OfflineKnowledge
from labctl.lockfile import Lock, read_lock
from labctl.model.lab import Lab, read_lab
from labctl.model.literal import masked, secret_problems
from labctl.registry import Registry
from labctl.render import Rendered, render
from labctl.resolve.lab import PlacedLab, resolve
from labctl.secret_names import missing_secrets
from labctl.values import dataclass

HARMLESS: Final = frozenset({"LAB006"})
"""Errors of the text after which its values are still worth checking: a key that is written twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A lab as far as it could be taken, and everything there is to say about it, located.

    ``rendered`` is None when an earlier step failed, ``placed`` when the model was not valid, ``document`` when the
    file could not be read.
    """

    path: Path
    """The folder of the lab."""
    diagnostics: tuple[Diagnostic, ...]
    document: Document | None = None
    lab: Lab | None = None
    placed: PlacedLab | None = None
    rendered: Rendered | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return not any(d.is_error for d in self.diagnostics)

    def need_placed(self) -> PlacedLab:
        """Return the placed lab; LabctlError when there is none."""
        if self.placed is None:
            raise LabctlError(self.diagnostics)
        return self.placed

    def need_rendered(self) -> Rendered:
        """Return the rendered lab; LabctlError when anything is wrong."""
        if self.rendered is None or not self.ok:
            raise LabctlError(self.diagnostics)
        return self.rendered


def load(path: Path, overlays: Iterable[str] = ()) -> Loaded:
    """Read a lab and take it as far as it goes. Reads files below the lab's folder, and never the network."""
    folder = find_lab(path).parent
    document = read_document(path, tuple(overlays))
    if document.value is None or any(d.is_error and d.code not in HARMLESS for d in document.diagnostics):
        return Loaded(path=folder, diagnostics=document.diagnostics)
    loaded = _take(document.value, folder, only_schema=not document.ok)
    data = document.value.data
    secrets = tuple(secret_problems(data))
    places = {problem.path for problem in secrets}
    # a secret where a name belongs is one mistake, not two
    others = [d for d in loaded.diagnostics if d.path not in places]
    found = document.value.locate_all((*secrets, *others))
    return Loaded(
        path=folder,
        diagnostics=masked((*document.diagnostics, *found), data),
        document=document.value,
        lab=loaded.lab,
        placed=loaded.placed,
        rendered=loaded.rendered,
    )


def _take(document: Document, folder: Path, *, only_schema: bool) -> Loaded:
    """Take a document as far as it goes; ``only_schema`` when a key is doubled and nobody knows which was meant."""
    registry = Registry()
    lab = read_lab(document.data, registry)
    if lab.value is None or not lab.ok or only_schema:
        return Loaded(path=folder, diagnostics=lab.diagnostics)
    lock, damage = _lock(folder)
    return _place(lab.value, registry, lock, folder, (*lab.diagnostics, *damage))


def _place(lab: Lab, registry: Registry, lock: Lock, folder: Path, found: tuple[Diagnostic, ...]) -> Loaded:
    """Take a valid lab to what it renders to."""
    placed = resolve(lab, registry, OfflineKnowledge(lock.valid(lab.models)))
    found = (*found, *lock.stale(lab.models), *placed.diagnostics)
    if placed.value is None or not placed.ok:
        return Loaded(path=folder, diagnostics=found, lab=lab, placed=placed.value)
    targets = {name: registry.target(host.target) for name, host in lab.hosts.items()}
    assets = Assets(folder)
    rendered = render(placed.value, targets, assets.text, assets.beside)
    found = (*found, *rendered.diagnostics)
    return Loaded(path=folder, diagnostics=found, lab=lab, placed=placed.value, rendered=rendered.value)


def with_active(loaded: Loaded, active: Mapping[str, str]) -> Loaded:
    """Return a lab as if its file said ``active:`` so for these exclusive groups. Its diagnostics stay as they are."""
    if not active or loaded.lab is None or loaded.rendered is None:
        return loaded
    groups = {
        name: group.model_copy(update={"active": active.get(name, group.active)})
        for name, group in loaded.lab.groups.items()
    }
    lab = replace(loaded.lab, groups=groups)
    lock, _ = _lock(loaded.path)
    again = _place(lab, Registry(), lock, loaded.path, ())
    return replace(loaded, lab=again.lab, placed=again.placed, rendered=again.rendered)


def _lock(folder: Path) -> tuple[Lock, tuple[Diagnostic, ...]]:
    """Return the lock file, or an empty one and what is wrong with it: `labctl lock` can still make it anew."""
    try:
        return read_lock(folder), ()
    except LabctlError as error:
        return Lock(), error.diagnostics


def validate(path: Path, overlays: Iterable[str] = ()) -> Loaded:
    """Return everything that is wrong with a lab, missing secrets included (by name: no value is read)."""
    loaded = load(path, overlays)
    if loaded.rendered is None or loaded.document is None or loaded.lab is None:
        return loaded
    rendered = loaded.rendered
    missing = missing_secrets(loaded.lab.secrets, rendered.workloads, loaded.path, rendered.tree.secret_origins)
    located = loaded.document.locate_all(missing)
    return Loaded(
        path=loaded.path,
        diagnostics=(*loaded.diagnostics, *located),
        document=loaded.document,
        lab=loaded.lab,
        placed=loaded.placed,
        rendered=loaded.rendered,
    )


def tree_files(rendered: Rendered) -> Mapping[str, bytes]:
    """Return what ``labctl render`` writes: ``<host>/<path>`` → content; secrets are named and never shown."""
    files = {f"{f.host}/{f.path}": f.content for f in rendered.tree.files()}
    files |= {f"{o.host}/{o.path}": o.content for o in rendered.tree.objects}
    return dict(sorted(files.items()))


def schema() -> dict[str, Any]:
    """Return the JSON Schema of lab.yaml."""
    from labctl.model.schema import lab_schema  # noqa: PLC0415 - every engine is loaded for it

    return lab_schema(Registry())
