"""``labctl switch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli import complete
from labctl.cli.options import HERE, AskSudoPassword, BreakLock, Json, Overlays, Wait

Group = Annotated[
    str,
    typer.Argument(
        metavar="[GROUP]",
        help="An exclusive group; none: list all.",
        show_default=False,
        autocompletion=complete.groups,
    ),
]
Member = Annotated[
    str,
    typer.Argument(
        metavar="[MEMBER]", help="The deployment that is to run.", show_default=False, autocompletion=complete.members
    ),
]
Lab = Annotated[Path, typer.Option("--lab", metavar="LAB", help="A lab's file or folder.", show_default="here")]


def switch(
    group: Group = "",
    member: Member = "",
    lab: Lab = HERE,
    overlay: Overlays = [],  # noqa: B006
    wait: Wait = 0,
    break_lock: BreakLock = False,
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Give another member of an exclusive group its turn.

    Without MEMBER the groups are listed. Hosts remember a switch: apply keeps it until `active:` in lab.yaml changes.
    """
    from labctl import usecases
    from labctl.cli.report import check
    from labctl.cli.sudo import sudo_password
    from labctl.cli.turns import list_groups, switch_to
    from labctl.hosts.applying import How

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    if not member:
        raise typer.Exit(list_groups(loaded, group, json=json))
    how = How(wait_for_lock=wait, break_lock=break_lock)
    raise typer.Exit(switch_to(loaded, group, member, how, json=json))
