"""Blueprints: complete labs to start from, found by name and copied into a new folder; nothing is ever overwritten."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from labctl.assets import shipped, user_folder
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.values import dataclass

LAB: Final = "lab.yaml"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A lab to start from: its name, its folder, and what it is for in one line."""

    name: str
    folder: Path
    about: str


def blueprints() -> Mapping[str, Blueprint]:
    """Return the blueprints by name, sorted; the user's own hide shipped ones of the same name."""
    found: dict[str, Blueprint] = {}
    for base in (shipped("blueprints"), user_folder("blueprints")):
        for lab in base.glob(f"*/{LAB}"):
            found[lab.parent.name] = Blueprint(lab.parent.name, lab.parent, _about(lab))
    return dict(sorted(found.items()))


def _about(lab: Path) -> str:
    """Return the first line of a lab that is a comment for people."""
    lines = (line.lstrip("# ").strip() for line in lab.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    return next((line for line in lines if line and "yaml-language-server" not in line), "")


def find(name: str) -> Blueprint:
    """Return the blueprint of that name; LabctlError (LAB099) when there is none."""
    known = blueprints()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"choose one of {', '.join(f'`{n}`' for n in known)}"
    raise LabctlError([Diagnostic(code="LAB099", summary=f"there is no blueprint `{name}`", hint=hint)])


def start(blueprint: Blueprint, folder: Path) -> tuple[Path, ...]:
    """Copy a blueprint into a folder and return the files written.

    Raises:
        LabctlError: LAB088 when one of the files is there already (then nothing is written) or cannot be written.
    """
    sources = sorted(path for path in blueprint.folder.rglob("*") if path.is_file())
    copies = {folder / path.relative_to(blueprint.folder): path for path in sources}
    for target in copies:
        if target.exists() or target.is_symlink():
            hint = "choose another folder: nothing is overwritten"
            raise LabctlError([Diagnostic(code="LAB088", summary=f"`{target}` is there already", hint=hint)])
    try:
        for target, source in copies.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(source.read_bytes())
    except OSError as error:
        summary = f"`{error.filename or folder}` cannot be written: {error.strerror}"
        raise LabctlError([Diagnostic(code="LAB088", summary=summary, hint="choose another folder")]) from error
    return tuple(copies)
