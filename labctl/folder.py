"""A rendered tree as a folder: ``DIR/<host>/<path>``, compared and written. Secrets are named and never written.

Where the lab has NixOS hosts, the folder is a flake of all of them: ``nix flake check DIR``, ``DIR#<host>``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from labctl.artefact import SYSTEM, File, ModelFile, SecretFile, Tree
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.emit import nix
from labctl.values import dataclass

MARK: Final = ".labctl-rendered"
"""Stands in every folder that labctl rendered into: only such a folder is cleaned."""
FLAKE: Final = "flake.nix"
LOCK: Final = "flake.lock"
"""What Nix writes beside ``FLAKE``, and people keep."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of the folder."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How a folder differs from what is wanted; paths are relative to it and sorted."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    same: int = 0
    diff: str = ""

    @property
    def any(self) -> bool:
        """Whether there is a difference."""
        return bool(self.new or self.changed or self.extra)

    def as_json(self) -> dict[str, Any]:
        """Return the changes as plain data."""
        return {"new": list(self.new), "changed": list(self.changed), "extra": list(self.extra), "same": self.same}


def wanted_files(tree: Tree) -> Mapping[str, Wanted]:
    """Return the files of a tree; a secret's file or object as the names it will hold, models as a list per host."""
    files: dict[str, Wanted] = {
        MARK: Wanted(b"made by labctl render; files that are not rendered are removed from here\n")
    }
    for artefact in tree.artefacts:
        match artefact:
            case File():
                files[f"{artefact.host}/{artefact.path}"] = Wanted(artefact.content, artefact.mode)
            case SecretFile():
                names = "".join(f"{name}=(secret)\n" for name in artefact.entries)
                files[f"{artefact.host}/{artefact.path}.names"] = Wanted(names.encode())
            case ModelFile():
                pass
    files |= {f"{o.host}/{o.path}": Wanted(o.content) for o in tree.objects}
    for host in tree.hosts:
        lines = [_model_line(a) for a in tree.artefacts if isinstance(a, ModelFile) and a.host == host]
        if lines:
            files[f"{host}/models.txt"] = Wanted("".join(lines).encode())
    flakes = {u.host: PurePosixPath(u.host, u.project).parent for u in tree.units if u.id == SYSTEM}
    if flakes:
        files[FLAKE] = Wanted(_lab_flake(flakes).encode())
    return dict(sorted(files.items()))


def _lab_flake(flakes: Mapping[str, PurePosixPath]) -> str:
    """Return the flake of all NixOS hosts, made of their own ones (paths of inputs are relative since Nix 2.26)."""
    configurations: dict[str, nix.Value] = {h: nix.Ref("inputs", h, "nixosConfigurations", h) for h in flakes}
    return nix.module(
        (),
        {
            "description": "the NixOS hosts of the lab",
            "inputs": {host: {"url": f"path:./{path}"} for host, path in flakes.items()},
            "outputs": nix.Lambda("inputs", {"nixosConfigurations": configurations}),
        },
    )


def _model_line(model: ModelFile) -> str:
    return f"{model.path}  {model.url or 'is there already'}{f'  sha256 {model.sha256}' if model.sha256 else ''}\n"


def compare(folder: Path, wanted: Mapping[str, Wanted]) -> Changes:
    """Return how a folder differs; a folder that does not exist has nothing."""
    present = {p: folder / p for p in _files(folder)}
    changed = [p for p, w in wanted.items() if p in present and _differs(present[p], w)]
    return Changes(
        new=tuple(p for p in wanted if p not in present),
        changed=tuple(changed),
        extra=tuple(p for p in sorted(present) if p not in wanted and not (p == LOCK and FLAKE in wanted)),
        same=len(wanted) - len(changed) - sum(1 for p in wanted if p not in present),
        diff="".join(_diff(p, present[p].read_bytes(), wanted[p].content) for p in changed),
    )


def _files(folder: Path) -> Iterator[str]:
    for base, _, names in os.walk(folder):
        for name in names:
            yield (Path(base) / name).relative_to(folder).as_posix()


def _differs(path: Path, wanted: Wanted) -> bool:
    return path.is_symlink() or path.read_bytes() != wanted.content or (path.stat().st_mode & 0o777) != wanted.mode


def _diff(name: str, old: bytes, new: bytes) -> str:
    try:
        lines = old.decode().splitlines(keepends=True), new.decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        return f"{name}: binary files differ\n"
    return "".join(difflib.unified_diff(*lines, f"{name} (there)", f"{name} (wanted)"))


def write(folder: Path, wanted: Mapping[str, Wanted], changes: Changes) -> None:
    """Make the folder what is wanted. LabctlError when it holds other things and labctl never rendered into it."""
    if changes.extra and not (folder / MARK).exists():
        raise LabctlError(
            [
                Diagnostic(
                    code="LAB087",
                    summary=f"`{folder}` holds files that labctl did not render, `{changes.extra[0]}` among them",
                    hint="choose an empty folder: what is not rendered would be removed",
                )
            ]
        )
    try:
        for path in changes.extra:
            (folder / path).unlink()
        for path in (*changes.new, *changes.changed):
            _write(folder / path, wanted[path])
        _remove_empty(folder)
    except OSError as error:
        summary = f"`{error.filename or folder}` cannot be written: {error.strerror}"
        raise LabctlError(
            [Diagnostic(code="LAB088", summary=summary, hint="choose another folder with `--out`")]
        ) from error


def _write(path: Path, wanted: Wanted) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.labctl")
    temporary.write_bytes(wanted.content)
    temporary.chmod(wanted.mode)
    temporary.replace(path)


def _remove_empty(folder: Path) -> None:
    for base, _, _ in sorted(os.walk(folder), reverse=True):
        path = Path(base)
        if path != folder and not any(path.iterdir()):
            path.rmdir()
