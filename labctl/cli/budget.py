"""What ``labctl vram-budget`` shows for each of its questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import typer

from labctl import usecases
from labctl.cli.report import printer, show_diagnostics
from labctl.diagnostics import Diagnostic, ExitCode, LabctlError
from labctl.estimate import estimate_gguf, max_context, servers_of
from labctl.resolve.lab import PlacedLab
from labctl.views.budget import budget_text
from labctl.views.budget_data import budget_json, footprint_json
from labctl.views.derivation import explain_text, max_context_text
from labctl.views.diagnostics import to_json
from labctl.vram.footprint import Footprint

T = TypeVar("T")


def show_budget(lab: Path, overlays: tuple[str, ...], *, json: bool) -> None:
    """Show the ledger, also when it does not fit: then with the errors, and exit code 1."""
    loaded = usecases.load(lab, overlays)
    placed = loaded.need_placed()
    if json:
        printer().data_json({**budget_json(placed), "diagnostics": to_json(loaded.diagnostics)})
    else:
        printer().data(budget_text(placed.ledger))
        show_diagnostics(loaded.diagnostics, json=False)
    if not loaded.ok:
        raise typer.Exit(ExitCode.ERROR)


def _placed(lab: Path, overlays: tuple[str, ...]) -> PlacedLab:
    return usecases.load(lab, overlays).need_placed()


def show_explained(lab: Path, overlays: tuple[str, ...], name: str, *, json: bool) -> None:
    """Show how every number of a deployment comes about."""
    placed = _placed(lab, overlays)
    found = {s.name: placed.ledger.footprints.get(s.name) for s in servers_of(placed, name)}
    if json:
        printer().data_json({n: footprint_json(f) for n, f in found.items() if f is not None})
        return
    equal = alike(found.items())
    printer().data("\n\n".join(explain_text(n, f) if f else f"{', '.join(n)}: nothing is known" for f, n in equal))


def alike(found: Iterable[tuple[str, T]]) -> list[tuple[T, list[str]]]:
    """Return each different answer once, with the names that it holds for, in the order of the first."""
    groups: dict[T, list[str]] = {}
    for name, answer in found:
        groups.setdefault(answer, []).append(name)
    return list(groups.items())


def show_max_context(lab: Path, overlays: tuple[str, ...], name: str, *, json: bool) -> None:
    """Show the largest context that fits."""
    found = max_context(_placed(lab, overlays), name)
    if json:
        printer().data_json([{"replica": w.server, "context": w.now, "max_context": w.largest} for w in found])
    else:
        equal = alike((w.server, replace(w, server="")) for w in found)
        printer().data("\n".join(max_context_text(names, answer) for answer, names in equal))


def show_file(location: str, settings: dict[str, Any], *, tensor_split: str, projector: str | None, json: bool) -> None:
    """Show the memory of one model file."""
    footprint: Footprint = estimate_gguf(location, {**settings, "tensor_split": _shares(tensor_split)}, projector)
    printer().data_json(footprint_json(footprint)) if json else printer().data(explain_text([location], footprint))


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        problem = Diagnostic(code="LAB023", summary=f"`{text}` is not a list of shares", hint="write for example `3,1`")
        raise LabctlError([problem]) from None
