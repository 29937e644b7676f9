"""``labctl lock``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli.options import HERE, Json, LabPath, Overlays

Update = Annotated[bool, typer.Option("--update", help="Read models again that are locked already.")]


def lock(lab: LabPath = HERE, update: Update = False, overlay: Overlays = [], json: Json = False) -> None:  # noqa: B006
    """Read the models' headers, sizes and digests into lab.lock.yaml."""
    from labctl import usecases
    from labctl.cli.report import printer, show_diagnostics
    from labctl.diagnostics import ExitCode
    from labctl.locking import lock_lab
    from labctl.views.diagnostics import to_json

    report = lock_lab(usecases.load(lab, tuple(overlay)), update=update, say=printer().say)
    counts = {"read": report.read, "kept": report.kept, "removed": report.removed}
    if json:
        names = {word: list(models) for word, models in counts.items()}
        printer().data_json({**names, "diagnostics": to_json(report.diagnostics)})
    else:
        show_diagnostics(report.diagnostics, json=False)
        printer().say("lab.lock.yaml: " + ", ".join(f"{len(models)} {word}" for word, models in counts.items()))
    if not report.ok:
        raise typer.Exit(ExitCode.ERROR)
