"""``labctl destroy``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli.options import HERE, BreakLock, Hosts, Json, LabPath, Overlays, Wait, Yes

Data = Annotated[bool, typer.Option("--data", help="Remove data volumes and downloaded models, too.")]


def destroy(
    lab: LabPath = HERE,
    yes: Yes = False,
    data: Data = False,
    host: Hosts = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
    wait: Wait = 0,
    break_lock: BreakLock = False,
    json: Json = False,
) -> None:
    """Remove what labctl owns on the hosts; data only with --data."""
    from labctl import operate, usecases
    from labctl.cli.report import check, printer
    from labctl.cli.work import carry_out, confirm
    from labctl.plan.wire import plan_to_value

    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    work = operate.make_plan(loaded, operate.Scope(hosts=tuple(host), destroy=True, data=data))
    if confirm(work, "destroy", yes=yes, diff=False, json=json):
        raise typer.Exit(carry_out(work, exact=False, lock=operate.Lock(wait=wait, break_it=break_lock), json=json))
    printer().data_json({"plan": plan_to_value(work.plan)}) if json else printer().say(
        f"{work.plan.lab}: there is nothing of it to remove"
    )
