"""``labctl init``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labctl.blueprints import Blueprint


def init(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The new lab's folder.")] = None,
    blueprint: Annotated[str | None, typer.Option("--blueprint", metavar="NAME", help="What to start from.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the blueprints.")] = False,
) -> None:
    """Start a lab from a blueprint.

    A complete, valid lab.yaml with a README is copied into DIR; no file is ever overwritten.
    """
    from labctl.blueprints import blueprints, find, start
    from labctl.cli.report import printer

    known = blueprints()
    if list_:
        printer().data(_listed(known.values()))
        return
    if folder is None:
        message = "name the folder of the new lab"
        raise typer.BadParameter(message, param_hint="DIR")
    chosen = find(blueprint if blueprint is not None else _ask(known.values()))
    for path in start(chosen, folder):
        printer().data(str(path))
    printer().say(f"next: read {folder / 'README.md'}, edit {folder / 'lab.yaml'}, then `labctl validate {folder}`")


def _listed(blueprints: Iterable[Blueprint]) -> str:
    rows = [(b.name, b.about) for b in blueprints]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {about}" for name, about in rows)


def _ask(known: Iterable[Blueprint]) -> str:
    """Ask for a blueprint on a terminal; elsewhere it has to be named."""
    if not sys.stdin.isatty():
        message = "name one, for example `--blueprint quickstart`; `labctl init --list` shows them"
        raise typer.BadParameter(message, param_hint="--blueprint")
    typer.echo(_listed(known), err=True)
    return str(typer.prompt("blueprint", default="quickstart", err=True))
