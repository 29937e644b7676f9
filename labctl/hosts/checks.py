"""Programs of a host that tell whether definition files are right, before anything uses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Check, HostError, Ran, Shell
from labctl.hosts.playbooks.library.labctl_place import accepts, complaints


def run_checks(shell: Shell, checks: Iterable[Check]) -> None:
    """Run checks one after the other. HostError with what the first one says that does not accept."""
    for check in checks:
        ran = shell.run(check.argv, timeout=check.timeout)
        if not accepts(check.names, check.ignore, ran.code, ran.err):
            raise HostError(refusal(check, ran))


def refusal(check: Check, ran: Ran) -> Diagnostic:
    """Return what to say when a check does not accept."""
    about = "\n".join(complaints(check.names, check.ignore, ran.err)) if check.names else ""
    return Diagnostic(code=check.code, summary=check.summary, detail=about or ran.tail())


def tolerating(checks: Iterable[Check], coming: Iterable[str]) -> list[Check]:
    """Return checks that do not mind files which are not there yet because they come with the same apply."""
    soon = tuple(sorted(coming))
    return [replace(check, ignore=(*check.ignore, *soon)) for check in checks]


def to_value(check: Check) -> dict[str, Any]:
    """Return a check as the module ``labctl_place`` reads it."""
    return {
        "argv": list(check.argv),
        "timeout": check.timeout,
        "names": list(check.names),
        "ignore": list(check.ignore),
    }
