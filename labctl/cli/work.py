"""What apply and destroy do the same way: show the plan, ask, carry it out with progress, sum up."""

from __future__ import annotations

import sys
from pathlib import Path

from labctl import operate, usecases
from labctl.cli.report import check, printer, show_diagnostics
from labctl.diagnostics import Diagnostic, ExitCode, LabctlError
from labctl.operate import Work
from labctl.plan.model import Plan
from labctl.plan.wire import plan_to_value
from labctl.views.plan import render_plan, summary
from labctl.views.progress import progress_view
from labctl.views.summary import summary_text, summary_value


def fresh_work(lab: Path, overlays: tuple[str, ...], hosts: tuple[str, ...], *, json: bool) -> Work:
    """Load a lab and plan an apply of it; secrets that are at hand are compared, too."""
    loaded = usecases.load(lab, overlays)
    check(loaded.diagnostics, json=json)
    tree = operate.tree_of(loaded, hosts)
    return operate.make_plan(loaded, operate.Scope(hosts=hosts), operate.known_secrets(loaded, tree))


def saved_work(path: Path, *, json: bool) -> Work:
    """Load a saved plan and its lab."""
    saved = operate.read_plan(path)
    loaded = usecases.load(saved.lab)
    check(loaded.diagnostics, json=json)
    return operate.check_saved(loaded, saved)


def show_plan(plan: Plan, *, diff: bool = False) -> None:
    """Print a plan: the plan itself on stdout, problems of hosts on stderr."""
    printer().data(render_plan(plan, diff=diff, colour=sys.stdout.isatty() and printer().colour))
    show_diagnostics(plan.diagnostics, json=False)


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


def carry_out(work: Work, *, exact: bool, lock: operate.Lock, json: bool) -> int:
    """Do what the plan says, showing progress, and return the exit code."""
    live = sys.stderr.isatty() and not json
    with progress_view(sys.stdout, sys.stderr, as_json=json, live=live) as view:
        report = operate.apply(work, view, exact=exact, lock=lock)
    problems = operate.locate(work.loaded, report.diagnostics)
    show_diagnostics(problems, json=False) if not json else None
    if report.ok and not work.plan.destroy:
        finish(work, json=json)
    elif report.ok:
        printer().say(
            f"{work.plan.lab}: nothing of it is left" + ("" if work.plan.data else " but its data, if it had any")
        )
    elif report.exit_code != ExitCode.STALE:
        printer().say("what was done stays done: run the same command again to go on")
    return report.exit_code


def finish(work: Work, *, json: bool) -> None:
    """Say where the lab answers."""
    if json:
        done = {"plan": plan_to_value(work.plan)} if work.nothing_to_do else {}
        printer().data_json({**done, "summary": summary_value(operate.summarise(work))})
    else:
        printer().data(summary_text(operate.summarise(work), changed=not work.nothing_to_do))
