"""``labctl status``."""

from __future__ import annotations

import typer

from labctl.cli.options import HERE, AskSudoPassword, Hosts, Json, LabPath, Overlays


def status(
    lab: LabPath = HERE,
    host: Hosts = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Show what was declared beside what runs."""
    from labctl import operate, usecases
    from labctl.cli.report import check, printer, show_diagnostics
    from labctl.cli.sudo import sudo_password
    from labctl.diagnostics import ExitCode
    from labctl.views.diagnostics import to_json
    from labctl.views.status import is_fine, locks_to_value, render_status, status_to_value

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    rows, locks, problems = operate.status(loaded, tuple(host))
    if json:
        value = {"units": status_to_value(rows), "locks": locks_to_value(locks), "diagnostics": to_json(problems)}
        printer().data_json(value)
    else:
        printer().data(render_status(rows, locks))
        show_diagnostics(problems, json=False)
    if any(d.is_error for d in problems) or not all(is_fine(row) for row in rows):
        raise typer.Exit(ExitCode.ERROR)
