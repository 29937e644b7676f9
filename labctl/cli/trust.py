"""``labctl trust``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli import complete
from labctl.cli.options import HERE, LabPath, Overlays

if TYPE_CHECKING:
    from labctl.hosts.trust import Offer

Host = Annotated[str, typer.Argument(metavar="HOST", help="A host of the lab.", autocompletion=complete.hosts)]
Fingerprint = Annotated[
    list[str],
    typer.Option("--fingerprint", metavar="SHA256:…", help="Accept this key without asking; again for jump hosts."),
]


def trust(
    host: Host,
    lab: LabPath = HERE,
    fingerprint: Fingerprint = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
) -> None:
    """Show a host's SSH key, and remember it once you have compared it."""
    from labctl import operate, usecases
    from labctl.cli.report import check, printer
    from labctl.diagnostics import LabctlError
    from labctl.hosts import trust
    from labctl.hosts.base import HostError

    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics)
    root = operate.tree_of(loaded, [host]).roots[host]
    try:
        for there in trust.places(root):
            offer = trust.ask(host, there)
            if offer is None:
                printer().say(f"{there.name}: its key is known and right")
                continue
            _compare(offer, fingerprint)
            trust.accept(offer)
            printer().say(f"{offer.name}: accepted, and written to {offer.file}")
    except HostError as error:
        raise LabctlError(operate.locate(loaded, [error.diagnostic])) from error


def _compare(offer: Offer, fingerprints: list[str]) -> None:
    """Let somebody compare. LabctlError when the key is not accepted."""
    from labctl.cli.report import printer
    from labctl.diagnostics import Diagnostic, LabctlError

    if offer.fingerprint in fingerprints:
        return
    printer().say(
        f"{offer.name} shows this {offer.kind} key, which nobody has compared yet:\n\n  {offer.fingerprint}\n\n"
        "On that machine's own console, this prints its keys:\n\n"
        "  for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done\n"
    )
    if fingerprints or not sys.stdin.isatty():
        why = "it is not the given one" if fingerprints else "there is no terminal to ask on: give --fingerprint"
        summary = f"the key of `{offer.name}` was not accepted: {why}"
        raise LabctlError([Diagnostic(code="LAB160", summary=summary, hint="nothing was written and nothing was sent")])
    if not typer.confirm("Is it the same?", err=True):
        summary = f"the key of `{offer.name}` was not accepted"
        raise LabctlError([Diagnostic(code="LAB160", summary=summary, hint="nothing was written and nothing was sent")])
