"""``labctl apply``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli.options import HERE, BreakLock, Hosts, Json, LabPath, Overlays, Wait, Yes

Diff = Annotated[bool, typer.Option("--diff", help="Show whole differences of files.")]


def apply(
    lab: LabPath = HERE,
    yes: Yes = False,
    diff: Diff = False,
    host: Hosts = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
    wait: Wait = 0,
    break_lock: BreakLock = False,
    json: Json = False,
) -> None:
    """Make the hosts what the lab says: show the plan, ask, do it.

    LAB may be a saved plan (plan.json): then exactly that is done, or nothing.
    """
    from labctl import operate
    from labctl.cli.work import carry_out, confirm, finish, fresh_work, saved_work

    saved = lab.suffix == ".json"
    work = saved_work(lab, json=json) if saved else fresh_work(lab, tuple(overlay), tuple(host), json=json)
    if confirm(work, "apply", yes=yes, diff=diff, json=json):
        lock = operate.Lock(wait=wait, break_it=break_lock)
        raise typer.Exit(carry_out(work, exact=saved, lock=lock, json=json))
    finish(work, json=json)
