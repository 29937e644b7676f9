"""``labctl rollback``: a host becomes what it was after an earlier apply. No typer, no rich.

Going back is an apply of the host's part of the tree as the host itself has kept it, with the secret files that it
kept; lab.yaml only says how the host is reached. It is not changed: the next apply makes the host what lab.yaml says.
"""

from __future__ import annotations

from dataclasses import replace

from labctl import operate
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.hosts import fleet
from labctl.hosts.applying import How, tree_for
from labctl.hosts.base import HostError
from labctl.hosts.connect import connect
from labctl.hosts.fleet import Report
from labctl.hosts.generations import Generation, Overview, overview
from labctl.lastknown import remember
from labctl.operate import Emit, Work
from labctl.plan.diff import diff
from labctl.secrets import Secrets
from labctl.usecases import Loaded
from labctl.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A way back that is planned."""

    work: Work
    generation: Generation


def generations(loaded: Loaded, host: str) -> Overview:
    """Return what a host has kept. LabctlError for a host that is not one of the lab's, or that cannot be asked."""
    root = operate.tree_of(loaded, [host]).roots[host]
    if root.cluster is not None:
        problem = Diagnostic(code="LAB128", summary=f"`{host}` is a cluster: it keeps no generations")
        raise LabctlError([problem])
    try:
        return overview(connect(root))
    except HostError as error:
        raise LabctlError(operate.locate(loaded, [error.diagnostic])) from error
    except OSError as error:
        summary = f"`{host}` cannot be asked for its generations: {error.strerror or error}"
        raise LabctlError([Diagnostic(code="LAB101", summary=summary, detail=str(error.filename or ""))]) from error


def make_plan(loaded: Loaded, host: str, to: int | None = None) -> Rollback:
    """Plan the way back. LabctlError (LAB128) when there is none.

    Args:
        loaded: the lab.
        host: the host.
        to: number of the generation; None: the one before the host's present one, or the newest when the last apply
            did not go well.
    """
    known = generations(loaded, host)
    generation = known.chosen(to)
    if generation is None:
        raise LabctlError([_none(host, known, to)])
    here = operate.tree_of(loaded, [host])
    tree = tree_for(here.roots[host], generation)
    observed = fleet.observe(tree, operate.known_secrets(loaded, here))
    plan = diff(
        tree,
        observed,
        generation.secret_digests(host),
        lab=loaded.need_placed().lab.name,
        lab_digest=generation.lab_digest,
    )
    return Rollback(work=Work(loaded=loaded, tree=tree, plan=plan), generation=generation)


def go_back(rollback: Rollback, emit: Emit, how: How | None = None) -> Report:
    """Carry out the plan."""
    work, host = rollback.work, rollback.work.tree.hosts[0]
    here = operate.tree_of(work.loaded, [host])
    secrets = operate.known_secrets(work.loaded, here) or Secrets()
    how = replace(how or How(), generations={host: rollback.generation})
    report = fleet.apply(work.plan, work.tree, secrets, emit, how)
    remember(work.plan.lab, fleet.observe(here, secrets))
    return report


def _none(host: str, known: Overview, to: int | None) -> Diagnostic:
    numbers = ", ".join(str(g.number) for g in known.generations) or "none"
    if to is not None:
        return Diagnostic(code="LAB128", summary=f"`{host}` has no generation {to}", hint=f"it has: {numbers}")
    summary = f"`{host}` has nothing to go back to"
    hint = "a generation is kept after every apply that goes well" if not known.generations else f"it has: {numbers}"
    return Diagnostic(code="LAB128", summary=summary, hint=hint)
