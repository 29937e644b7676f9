"""What hosts still need, as a list per host and as values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from labctl.hosts.doctor import Check, Examined
from labctl.views.diagnostics import to_json
from labctl.views.plan import printable


def render_doctor(hosts: Sequence[Examined]) -> str:
    """Return every check of every host, with the remedies, and a last line that counts."""
    bad = [host.host for host in hosts if not host.ok]
    last = f"{', '.join(bad)} cannot be applied to yet" if bad else "everything is there"
    return "\n".join([*(line for host in hosts for line in _host(host)), printable(last)])


def _host(examined: Examined) -> Iterator[str]:
    at = f" ({examined.address})" if examined.address else ""
    yield printable(f"{examined.host}{at}")
    width = max((len(check.name) for check in examined.checks), default=0)
    for check in examined.checks:
        yield from _check(check, width)
    yield ""


def _check(check: Check, width: int) -> Iterator[str]:
    problem = check.problem
    if problem is None:
        yield f"  ✓ {check.name:<{width}}  {printable(check.found)}"
        return
    mark = "✗" if problem.is_error else "!"
    yield f"  {mark} {check.name:<{width}}  {printable(problem.summary)} [{problem.code}]"
    margin = " " * (width + 6)
    yield from (f"{margin}{printable(line)}" for line in problem.detail.splitlines())
    if problem.hint:
        yield f"{margin}→ {printable(problem.hint)}"


def doctor_to_value(hosts: Sequence[Examined]) -> list[dict[str, Any]]:
    """Return the same as plain values."""
    return [
        {
            "host": host.host,
            "address": host.address,
            "ok": host.ok,
            "checks": [
                {
                    "name": check.name,
                    "ok": check.problem is None,
                    "found": check.found,
                    "problem": None if check.problem is None else to_json([check.problem])[0],
                }
                for check in host.checks
            ],
        }
        for host in hosts
    ]
