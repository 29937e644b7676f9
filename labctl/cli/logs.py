"""``labctl logs``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli import complete
from labctl.cli.options import HERE, AskSudoPassword, LabPath, Overlays

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="What runs: a server, a service or `gateway`.", autocompletion=complete.units),
]
Lines = Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines to show.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")]


def logs(
    name: Name,
    lab: LabPath = HERE,
    lines: Lines = 100,
    follow: Follow = False,
    overlay: Overlays = [],  # noqa: B006
    ask_sudo_password: AskSudoPassword = False,
) -> None:
    """Show the last log lines of something that runs."""
    from labctl import operate, usecases
    from labctl.cli.report import check, printer
    from labctl.cli.sudo import sudo_password

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics)
    for line in operate.logs(loaded, name, lines=lines, follow=follow):
        printer().data(line.rstrip("\n"))
