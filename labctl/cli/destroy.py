"""``labctl destroy``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli.options import (
    HERE,
    PARALLEL,
    AskSudoPassword,
    BreakLock,
    FailFast,
    Hosts,
    Json,
    LabPath,
    Overlays,
    Parallel,
    Wait,
    Yes,
)

Data = Annotated[bool, typer.Option("--data", help="Remove data volumes and downloaded models, too.")]


def destroy(
    lab: LabPath = HERE,
    yes: Yes = False,
    data: Data = False,
    host: Hosts = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
    fail_fast: FailFast = False,
    parallel: Parallel = PARALLEL,
    wait: Wait = 0,
    break_lock: BreakLock = False,
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Remove what labctl owns on the hosts; data only with --data."""
    from labctl import operate, usecases
    from labctl.cli.report import check
    from labctl.cli.sudo import sudo_password
    from labctl.cli.work import carry_out, confirm, nothing
    from labctl.hosts.applying import How

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    work = operate.make_plan(loaded, operate.Scope(hosts=tuple(host), destroy=True, data=data))
    if confirm(work, "destroy", yes=yes, diff=False, json=json):
        how = How(wait_for_lock=wait, break_lock=break_lock, fail_fast=fail_fast, at_once=parallel)
        raise typer.Exit(carry_out(work, how, json=json))
    nothing(work, f"{work.plan.lab}: there is nothing of it to remove", json=json)
