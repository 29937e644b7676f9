"""``labctl history``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli.options import HERE, AskSudoPassword, Hosts, Json, LabPath, Overlays

Last = Annotated[int, typer.Option("--last", "-n", min=1, help="Entries to show.")]


def history(
    lab: LabPath = HERE,
    host: Hosts = [],  # noqa: B006
    last: Last = 20,
    overlay: Overlays = [],  # noqa: B006
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Show who applied what to which host, when, and how it ended."""
    from labctl import operate, usecases
    from labctl.cli.report import check, printer, show_diagnostics
    from labctl.cli.sudo import sudo_password
    from labctl.diagnostics import ExitCode
    from labctl.views.diagnostics import to_json
    from labctl.views.history import history_to_value, render_history

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    entries, problems = operate.history(loaded, tuple(host), last)
    if json:
        printer().data_json({"history": history_to_value(entries), "diagnostics": to_json(problems)})
    else:
        printer().data(render_history(entries))
        show_diagnostics(problems, json=False)
    if any(d.is_error for d in problems):
        raise typer.Exit(ExitCode.ERROR)
