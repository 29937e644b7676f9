"""What apply and destroy do the same way: show the plan, ask, carry it out with progress, sum up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from labctl import operate, usecases
from labctl import saved as saved_plans
from labctl.cli.interrupts import at_once_on_second_interrupt
from labctl.cli.report import check, printer, show_diagnostics
from labctl.diagnostics import Diagnostic, ExitCode, LabctlError, Severity
from labctl.hosts.applying import How
from labctl.hosts.fleet import Report
from labctl.hosts.state import now
from labctl.operate import Work
from labctl.plan.model import Plan
from labctl.plan.wire import plan_to_value
from labctl.views.plan import render_plan, summary
from labctl.views.progress import json_line, progress_view, result_to_value
from labctl.views.summary import summary_text, summary_value


def fresh_work(lab: Path, overlays: tuple[str, ...], scope: operate.Scope, *, json: bool) -> Work:
    """Load a lab and plan an apply of it; secrets that are at hand are compared, too."""
    loaded = usecases.load(lab, overlays)
    check(loaded.diagnostics, json=json)
    tree = operate.tree_for(loaded, scope)
    return operate.make_plan(loaded, scope, operate.known_secrets(loaded, tree))


def saved_work(path: Path, *, json: bool) -> Work:
    """Load a saved plan and its lab."""
    saved = saved_plans.read_plan(path)
    loaded = usecases.load(saved.lab)
    check(loaded.diagnostics, json=json)
    return saved_plans.check_saved(loaded, saved)


def show_plan(plan: Plan, *, diff: bool = False, notes: bool = True) -> None:
    """Print a plan: the plan itself on stdout, problems of hosts (with ``notes`` all there is to say) on stderr."""
    printer().data(render_plan(plan, diff=diff, colour=sys.stdout.isatty() and printer().colour))
    said = [d for d in plan.diagnostics if notes or d.severity is not Severity.NOTE]
    show_diagnostics(said, json=False)


def confirm(work: Work, verb: str, *, yes: bool, diff: bool, json: bool) -> bool:
    """Show the plan and return whether to go on; False when there is nothing to do."""
    if work.nothing_to_do:
        return False
    if not json:
        show_plan(work.plan, diff=diff)
    if not work.plan.applyable:
        raise LabctlError(work.plan.diagnostics)
    if yes:
        return True
    if json or not sys.stdin.isatty():
        problem = Diagnostic(
            code="LAB126", summary="there is no terminal to ask on", hint="add `--yes` to go on unasked"
        )
        raise LabctlError([problem])
    answer = input(f"{verb} {work.plan.lab} on {', '.join(work.tree.hosts)}: {summary(work.plan)}. Go on? [y/N] ")
    if answer.strip().lower() not in {"y", "yes"}:
        raise LabctlError([Diagnostic(code="LAB127", summary=f"nothing was done: {verb} was not confirmed")])
    return True


Doing = Callable[[operate.Emit], Report]
"""Does something on hosts and tells what happens."""


def watch(work: Work, doing: Doing, *, json: bool) -> Report:
    """Do something on hosts, showing progress; with ``json`` the plan, every event and the result are a line each."""
    with at_once_on_second_interrupt():
        if json:
            _plan_line(work)
        with progress_view(sys.stdout, sys.stderr, now, as_json=json, live=sys.stderr.isatty()) as view:
            report = doing(view)
    if not json:
        show_diagnostics(operate.locate(work.loaded, report.diagnostics), json=False)
        _say_how_to_go_on(report)
    return report


def _say_how_to_go_on(report: Report) -> None:
    if not report.ok and report.exit_code != ExitCode.STALE:
        printer().say("what was done stays done: run the same command again to go on")


def carry_out(work: Work, how: How, *, json: bool) -> int:
    """Do what the plan says, showing progress, and return the exit code."""
    report = watch(work, lambda emit: operate.apply(work, emit, how), json=json)
    if report.ok and not work.plan.destroy:
        finish(work, report, json=json)
    elif json:
        result(report)
    elif report.ok:
        printer().say(
            f"{work.plan.lab}: nothing of it is left" + ("" if work.plan.data else " but its data, if it had any")
        )
    return report.exit_code


def result(report: Report, **more: object) -> None:
    """Print the last JSON line."""
    printer().data(json_line(result_to_value(report, now(), **more)))


def finish(work: Work, report: Report | None = None, *, json: bool) -> None:
    """Say where the lab answers. Without a report there was nothing to do."""
    if not json:
        printer().data(summary_text(operate.summarise(work), changed=not work.nothing_to_do))
        return
    if report is None:
        _plan_line(work)
    result(report or Report(), summary=summary_value(operate.summarise(work)))


def nothing(work: Work, text: str, *, json: bool) -> None:
    """Say that there was nothing to do."""
    if json:
        _plan_line(work)
        result(Report())
    else:
        printer().say(text)


def _plan_line(work: Work) -> None:
    printer().data(json_line({"event": "Plan", "at": now(), "plan": plan_to_value(work.plan)}))
    sys.stdout.flush()
