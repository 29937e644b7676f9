"""``labctl rollback``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli import complete
from labctl.cli.options import HERE, AskSudoPassword, BreakLock, Json, LabPath, Overlays, Wait, Yes

Host = Annotated[
    str,
    typer.Argument(
        metavar="HOST", help="The host that is to go back.", autocompletion=complete.hosts, show_default=False
    ),
]
To = Annotated[int | None, typer.Option("--to", metavar="N", min=1, help="The generation; default: the last good one.")]
Listed = Annotated[bool, typer.Option("--list", help="Show what the host can go back to, and do nothing.")]
Diff = Annotated[bool, typer.Option("--diff", help="Show whole differences of files.")]


def rollback(
    host: Host,
    lab: LabPath = HERE,
    to: To = None,
    listed: Listed = False,
    yes: Yes = False,
    diff: Diff = False,
    overlay: Overlays = [],  # noqa: B006
    wait: Wait = 0,
    break_lock: BreakLock = False,
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Make a host what it was after an earlier apply.

    After every apply that goes well a host keeps what it is, secret files included; the last three are kept. lab.yaml
    stays as it is: the next apply makes the host what it says.
    """
    from labctl import rollback as back
    from labctl import usecases
    from labctl.cli.report import check, printer
    from labctl.cli.sudo import sudo_password
    from labctl.cli.work import confirm, result, watch
    from labctl.hosts.applying import How
    from labctl.hosts.fleet import Report
    from labctl.views.rollback import generations_to_value, render_generations

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    if listed:
        known = back.generations(loaded, host)
        if json:
            printer().data_json({"host": host, "generations": generations_to_value(known)})
        else:
            printer().data(render_generations(known))
        return
    plan = back.make_plan(loaded, host, to)
    number, at = plan.generation.number, plan.generation.at
    if not confirm(plan.work, "rollback", yes=yes, diff=diff, json=json):
        report = Report()
    else:
        how = How(wait_for_lock=wait, break_lock=break_lock)
        report = watch(plan.work, lambda emit: back.go_back(plan, emit, how), json=json)
    if json:
        result(report, generation=number)
    elif report.ok:
        printer().say(f"{host} is as it was at {at} (generation {number})")
    raise typer.Exit(report.exit_code)
