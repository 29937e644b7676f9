"""Saved plans: a file that is applied later, exactly as it is or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from labctl.diagnostics import Diagnostic, ExitCode, LabctlError
from labctl.operate import Work, lab_digest, tree_of
from labctl.plan.model import Plan
from labctl.plan.wire import WireError, plan_from_json, plan_to_value
from labctl.usecases import Loaded, with_active
from labctl.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A plan from a file, and the lab that it was made for."""

    plan: Plan
    lab: Path
    active: Mapping[str, str] = field(default_factory=dict)
    """Exclusive group → its member, where somebody had switched to it."""


def save_plan(path: Path, work: Work) -> None:
    """Write a plan to a file, with the place of its lab; LabctlError when that cannot be done."""
    source = {"source": str(work.loaded.path.resolve()), "active": dict(work.turns.active)}
    value = {**plan_to_value(work.plan), **source}
    try:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        summary = f"`{path}` cannot be written: {error.strerror}"
        raise LabctlError([Diagnostic(code="LAB088", summary=summary, hint="choose another file")]) from error


def read_plan(path: Path) -> Saved:
    """Read a saved plan; LabctlError when it is none."""
    try:
        text = path.read_bytes()
        plan, value = plan_from_json(text), json.loads(text)
        return Saved(plan=plan, lab=Path(value.get("source", ".")), active=value.get("active", {}))
    except (OSError, WireError) as error:
        summary = f"`{path}` is not a plan that can be read: {error}"
        hint = "make one with `labctl plan --out plan.json`"
        raise LabctlError([Diagnostic(code="LAB125", summary=summary, hint=hint)]) from error


def check_saved(loaded: Loaded, saved: Saved) -> Work:
    """Return the work of a saved plan; LabctlError (exit code 5) when the lab has changed since."""
    loaded = with_active(loaded, saved.active)
    tree, plan = tree_of(loaded, sorted(saved.plan.hosts)), saved.plan
    if plan.lab_digest != lab_digest(loaded) or plan.tree_digest != tree.digest():
        problem = Diagnostic(
            code="LAB124", summary="the lab has changed since the plan was made", hint="make a new plan"
        )
        raise LabctlError([problem], ExitCode.STALE)
    return Work(loaded=loaded, tree=tree, plan=plan)
