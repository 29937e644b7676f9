"""``labctl apply``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli.options import (
    HERE,
    PARALLEL,
    AskSudoPassword,
    BreakLock,
    FailFast,
    ForceConflicts,
    Hosts,
    Json,
    LabPath,
    Only,
    Overlays,
    Parallel,
    Wait,
    Yes,
)

Diff = Annotated[bool, typer.Option("--diff", help="Show whole differences of files.")]


def apply(
    lab: LabPath = HERE,
    yes: Yes = False,
    diff: Diff = False,
    host: Hosts = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
    fail_fast: FailFast = False,
    parallel: Parallel = PARALLEL,
    wait: Wait = 0,
    break_lock: BreakLock = False,
    force_conflicts: ForceConflicts = False,
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Make the hosts what the lab says: show the plan, ask, do it.

    LAB may be a saved plan (plan.json): then exactly that is done, or nothing.
    """
    from labctl.cli.sudo import sudo_password
    from labctl.cli.work import carry_out, confirm, finish, fresh_work, saved_work
    from labctl.hosts.applying import How
    from labctl.operate import Scope, settle_turns

    sudo_password(ask=ask_sudo_password)
    saved = lab.suffix == ".json"
    scope = Scope(hosts=tuple(host), only=tuple(only))
    work = saved_work(lab, json=json) if saved else fresh_work(lab, tuple(overlay), scope, json=json)
    if confirm(work, "apply", yes=yes, diff=diff, json=json):
        how = How(
            exact=saved,
            wait_for_lock=wait,
            break_lock=break_lock,
            force=force_conflicts,
            fail_fast=fail_fast,
            at_once=parallel,
        )
        raise typer.Exit(carry_out(work, how, json=json))
    settle_turns(work)
    finish(work, json=json)
