"""Arguments and options that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from labctl.cli import complete

HERE: Final = Path()
"""The default lab: ``lab.yaml`` in the working directory."""

LabPath = Annotated[
    Path, typer.Argument(metavar="LAB", help="A lab's file or folder; default: here.", show_default=False)
]
Overlays = Annotated[
    list[str],
    typer.Option("--overlay", metavar="NAME", help="Lay lab.NAME.yaml over the lab; can be given again."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, errors included.")]
Hosts = Annotated[
    list[str],
    typer.Option("--host", metavar="NAME", help="Only this host; can be given again.", autocompletion=complete.hosts),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PARALLEL: Final = 8
"""Hosts worked on at the same time."""
Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait for another apply to end.")]
Only = Annotated[
    list[str],
    typer.Option(
        "--only",
        metavar="NAME",
        autocompletion=complete.units,
        help="Only this deployment, service or `gateway`; can be given again.",
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Start nothing more on any host once one has failed.")]
Parallel = Annotated[int, typer.Option("--parallel", metavar="N", min=1, help="Hosts worked on at the same time.")]
AskSudoPassword = Annotated[bool, typer.Option("--ask-sudo-password", help="Ask for the password that sudo wants.")]
ForceConflicts = Annotated[
    bool, typer.Option("--force-conflicts", help="Take over fields of Kubernetes objects that others have set.")
]
BreakLock = Annotated[bool, typer.Option("--break-lock", help="Take the lock from another apply.")]
