"""``labctl plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.options import HERE, AskSudoPassword, Hosts, Json, LabPath, Only, Overlays

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Save the plan, for `labctl apply FILE`.")]
Detailed = Annotated[bool, typer.Option("--detailed-exitcode", help="Exit 2 when there are changes.")]
Offline = Annotated[bool, typer.Option("--offline", help="Compare with the last known state; ask no host.")]
Diff = Annotated[bool, typer.Option("--diff", help="Show whole differences of files.")]


def plan(
    lab: LabPath = HERE,
    out: Out = None,
    detailed_exitcode: Detailed = False,
    offline: Offline = False,
    diff: Diff = False,
    host: Hosts = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Show what apply would do, and why."""
    from labctl import operate, usecases
    from labctl.cli.report import check, printer
    from labctl.cli.sudo import sudo_password
    from labctl.cli.work import show_plan
    from labctl.diagnostics import ExitCode
    from labctl.plan.wire import plan_to_json
    from labctl.saved import save_plan

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    work = operate.make_plan(loaded, operate.Scope(hosts=tuple(host), offline=offline, only=tuple(only)))
    if out is not None:
        save_plan(out, work)
    if json:
        printer().data(plan_to_json(work.plan).rstrip("\n"))
    else:
        show_plan(work.plan, diff=diff)
    if work.plan.errored:
        raise typer.Exit(ExitCode.ERROR)
    if detailed_exitcode and not work.nothing_to_do:
        raise typer.Exit(ExitCode.CHANGES)
