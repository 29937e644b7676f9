"""``labctl status``."""

from __future__ import annotations

import typer

from labctl.cli.options import HERE, Json, LabPath, Overlays


def status(lab: LabPath = HERE, overlay: Overlays = [], json: Json = False) -> None:  # noqa: B006
    """Show what was declared beside what runs."""
    from labctl import operate, usecases
    from labctl.cli.report import check, printer, show_diagnostics
    from labctl.diagnostics import ExitCode
    from labctl.views.diagnostics import to_json
    from labctl.views.status import is_fine, render_status, status_to_value

    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    rows, problems = operate.status(loaded)
    if json:
        printer().data_json({"units": status_to_value(rows), "diagnostics": to_json(problems)})
    else:
        printer().data(render_status(rows))
        show_diagnostics(problems, json=False)
    if problems or not all(is_fine(row) for row in rows):
        raise typer.Exit(ExitCode.ERROR)
