"""``labctl render``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.options import HERE, Json, LabPath, Overlays

Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write DIR/<host>/…; other files there go.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 2 and show the diff when DIR differs.")]


def render(
    lab: LabPath = HERE,
    out: Out = None,
    check: Check = False,
    overlay: Overlays = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Write everything a lab renders to, or compare it with a folder."""
    if check and out is None:
        message = "name the folder with --out"
        raise typer.BadParameter(message, param_hint="--check")
    from labctl import folder, usecases
    from labctl.cli.report import check as check_all
    from labctl.cli.report import printer
    from labctl.diagnostics import ExitCode
    from labctl.views.rendered import changes_text, rendered_json, summary_text

    loaded = usecases.load(lab, tuple(overlay))
    check_all(loaded.diagnostics, json=json)
    rendered = loaded.need_rendered()
    wanted = folder.wanted_files(rendered.tree)
    if out is None:
        printer().data_json(rendered_json(rendered.tree)) if json else printer().data(summary_text(rendered.tree))
        return
    changes = folder.compare(out, wanted)
    if not check:
        folder.write(out, wanted, changes)
    printer().data_json(changes.as_json()) if json else printer().data(changes_text(changes, out, done=not check))
    if check and changes.any:
        raise typer.Exit(ExitCode.CHANGES)
