"""What ``labctl switch`` does: list the exclusive groups, or give a member its turn."""

from __future__ import annotations

from labctl import switching
from labctl.cli.report import printer, show_diagnostics
from labctl.cli.work import result, show_plan, watch
from labctl.diagnostics import ExitCode
from labctl.hosts.applying import How
from labctl.hosts.fleet import Report
from labctl.usecases import Loaded
from labctl.views.diagnostics import to_json
from labctl.views.switch import groups_to_value, render_groups


def list_groups(loaded: Loaded, name: str, *, json: bool) -> int:
    """Print all exclusive groups, or one, and who runs; return the exit code."""
    groups, problems = switching.groups(loaded, name)
    if json:
        printer().data_json({"groups": groups_to_value(groups), "diagnostics": to_json(problems)})
    else:
        printer().data(render_groups(groups))
        show_diagnostics(problems, json=False)
    return ExitCode.ERROR if any(d.is_error for d in problems) else ExitCode.OK


def switch_to(loaded: Loaded, group: str, member: str, how: How, *, json: bool) -> int:
    """Give a member its turn, showing progress; return the exit code."""
    prepared = switching.prepare(loaded, group, member)
    idle = prepared.work.nothing_to_do
    if idle:
        switching.keep(prepared)
        report = Report()
    else:
        if not json:
            show_plan(prepared.work.plan, notes=False)
        report = watch(prepared.work, lambda emit: switching.carry_out(prepared, emit, how), json=json)
    if json:
        result(report, group=group, member=member)
    elif report.ok:
        printer().data(f"{group}: `{member}` runs{' already' if idle else ''}")
    return report.exit_code
