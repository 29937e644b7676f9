"""Operating a lab: plan, apply, destroy, status and logs, as functions of values; no typer, no rich.

A plan is made from a tree and from what is seen on the hosts; apply takes the plan. Secrets are read here and handed to
the writer, and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from labctl.artefact import Tree
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.hosts import fleet, turns
from labctl.hosts import history as hosts_history
from labctl.hosts.applying import How
from labctl.hosts.base import HostError
from labctl.hosts.events import Event
from labctl.hosts.history import Entry, locks
from labctl.hosts.state import Lock as HeldLock
from labctl.lastknown import known_turns, last_known, remember, remember_turns, state_folder, tidy
from labctl.plan.diff import diff
from labctl.plan.facts import differences
from labctl.plan.model import Change, Plan
from labctl.plan.narrow import narrow
from labctl.plan.observed import Observed, SecretDigests
from labctl.plan.turns import Group, Turns, notes, standing
from labctl.secret_names import source_of
from labctl.secrets import Generated, Secrets, Source, require
from labctl.secrets import load as load_secrets
from labctl.usecases import Loaded, with_active
from labctl.values import dataclass
from labctl.workload import Task

Emit = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A loaded lab, the part of its tree that is worked on, and the plan for it."""

    loaded: Loaded
    """As it stands: with the members of exclusive groups that were switched to."""
    tree: Tree
    plan: Plan
    turns: Turns = Turns()

    @property
    def nothing_to_do(self) -> bool:
        """Every host was seen and is as it should be."""
        return self.plan.complete and not self.plan.applyable


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which part of a lab a command is about, and how it looks at it."""

    hosts: tuple[str, ...] = ()
    offline: bool = False
    destroy: bool = False
    data: bool = False
    only: tuple[str, ...] = ()
    """Names of deployments, services or the gateway; empty: everything."""


def tree_of(loaded: Loaded, hosts: Iterable[str] = ()) -> Tree:
    """Return the tree of a lab, or of some of its hosts. LabctlError for a host that is not rendered."""
    tree = loaded.need_rendered().tree
    wanted = tuple(hosts)
    unknown = [h for h in wanted if h not in tree.hosts]
    if unknown:
        known = ", ".join(f"`{h}`" for h in tree.hosts)
        raise LabctlError(
            Diagnostic(code="LAB050", summary=f"there is no host `{h}` to work on", hint=f"known: {known}")
            for h in unknown
        )
    if not wanted:
        return tree
    return Tree.of(item for h in wanted for item in tree.of_host(h).items())


def tree_for(loaded: Loaded, scope: Scope) -> Tree:
    """Return the part of a tree that a command is about: hosts, and of those the ones that run what is named."""
    tree = tree_of(loaded, scope.hosts)
    if not scope.only:
        return tree
    known = {unit.name: unit.host for unit in tree.units}
    unknown = [name for name in scope.only if name not in known]
    if unknown:
        hint = f"known: {', '.join(f'`{name}`' for name in sorted(known))}"
        raise LabctlError(
            Diagnostic(code="LAB053", summary=f"nothing called `{name}` runs on these hosts", hint=hint)
            for name in unknown
        )
    return tree_of(loaded, sorted({known[name] for name in scope.only}))


def groups_of(loaded: Loaded) -> tuple[Group, ...]:
    """Return a lab's exclusive groups as its file has them."""
    lab = loaded.need_placed().lab
    found: list[Group] = []
    for name, group in lab.groups.items():
        if not group.exclusive:
            continue  # the gateway decides who is loaded
        runs = any(lab.deployments[member].start == "always" for member in group.exclusive)
        active = (group.active or group.exclusive[0]) if runs else None
        found.append(Group(name=name, members=tuple(group.exclusive), active=active))
    return tuple(found)


def as_it_stands(loaded: Loaded, *, offline: bool = False) -> tuple[Loaded, Turns]:
    """Return a lab with the members of exclusive groups that were switched to by hand, as the hosts remember it."""
    groups = groups_of(loaded)
    if not groups:
        return loaded, Turns()
    name = loaded.need_placed().lab.name
    roots = turns.roots_of(loaded.need_rendered().tree, [group.name for group in groups])
    found = standing(groups, known_turns(name) if offline else turns.read_turns(roots))
    return with_active(loaded, found.active), found


def make_plan(loaded: Loaded, scope: Scope, secrets: Secrets | None = None) -> Work:
    """Look at the hosts and return what would have to be done. Reads no secret: hand values in to compare those too."""
    loaded, found = as_it_stands(loaded, offline=scope.offline)
    return plan_of(loaded, found, scope, secrets)


def look(loaded: Loaded, scope: Scope, secrets: Secrets | None = None) -> Observed:
    """Return what is on the hosts; ``offline`` what an apply left there."""
    tree = tree_for(loaded, scope)
    return last_known(loaded.need_placed().lab.name, tree) if scope.offline else fleet.observe(tree, secrets)


def plan_of(
    loaded: Loaded, found: Turns, scope: Scope, secrets: Secrets | None = None, observed: Observed | None = None
) -> Work:
    """Plan a lab as it stands; ``observed`` is what was seen just now, when somebody has looked already."""
    tree = tree_for(loaded, scope)
    observed = observed or look(loaded, scope, secrets)
    digests = fleet.secret_digests(tree, secrets) if secrets is not None else None
    plan = _with_notes(_plan(loaded, tree, observed, digests, scope), tree, found)
    plan = plan if scope.destroy else _with_differences(loaded, plan, observed)
    return Work(loaded=loaded, tree=tree, plan=_located_plan(loaded, plan), turns=found)


def _with_notes(plan: Plan, tree: Tree, found: Turns) -> Plan:
    """Say with the hosts of a group that it was switched by hand."""
    hosts = dict(plan.hosts)
    for name, note in notes(found).items():
        for host in sorted({u.host for u in tree.units if u.turns == name} & hosts.keys())[:1]:
            hosts[host] = replace(hosts[host], why=(*hosts[host].why, note))
    return replace(plan, hosts=hosts)


def _with_differences(loaded: Loaded, plan: Plan, observed: Observed) -> Plan:
    """Say with each host where it is not what lab.yaml says."""
    placed, hosts = loaded.need_placed(), dict(plan.hosts)
    for name in hosts.keys() & placed.hosts.keys() & observed.hosts.keys():
        facts = observed.hosts[name].facts
        if facts is not None:
            found = differences(placed.hosts[name], facts, placed.lab.hosts[name].driver)
            hosts[name] = replace(hosts[name], why=(*hosts[name].why, *found))
    return replace(plan, hosts=hosts)


def _plan(loaded: Loaded, tree: Tree, observed: Observed, digests: SecretDigests | None, scope: Scope) -> Plan:
    plan = diff(
        tree,
        observed,
        digests,
        lab=loaded.need_placed().lab.name,
        lab_digest=lab_digest(loaded),
        destroy=scope.destroy,
        data=scope.data,
    )
    return narrow(plan, tree, scope.only)


def _located_plan(loaded: Loaded, plan: Plan) -> Plan:
    hosts = {name: replace(host, why=locate(loaded, host.why)) for name, host in plan.hosts.items()}
    return replace(plan, hosts=hosts, changes=tuple(_located(loaded, c) for c in plan.changes))


def _located(loaded: Loaded, change: Change) -> Change:
    if loaded.document is None or not change.origin:
        return change
    span = loaded.document.span(change.origin)
    return replace(change, span=replace(span, source="") if span is not None else None)


def locate(loaded: Loaded, diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Return diagnostics with their places in lab.yaml."""
    return tuple(diagnostics) if loaded.document is None else loaded.document.locate_all(diagnostics)


def lab_digest(loaded: Loaded) -> str:
    """Return a digest of what the lab says, independent of its comments and layout."""
    data = loaded.document.data if loaded.document is not None else None
    return hashlib.sha256(repr(data).encode()).hexdigest()


def generated_file(lab: str) -> Path:
    """Return the file of the secrets that labctl invented for a lab."""
    return state_folder() / "secrets" / f"{lab}.env"


def sources(loaded: Loaded, tree: Tree, *, invent: bool) -> tuple[list[Source], frozenset[str]]:
    """Return the sources of the secrets that a tree needs, and their names.

    With ``invent`` the ones to be generated are made up if they are not there yet; without, only those that are.
    """
    rendered = loaded.need_rendered()
    names = tree.secret_names
    secrets = rendered.placed.lab.secrets
    generate = names & set(secrets.generate)
    kept = generated_file(rendered.placed.lab.name)
    found: list[Source] = []
    if names - generate:
        found.append(source_of(secrets, names - generate, loaded.path))
    if generate and (invent or kept.exists()):
        found.append(Generated(kept, frozenset(generate)))
    return found, names


def known_secrets(loaded: Loaded, tree: Tree) -> Secrets | None:
    """Return the secrets if all of them are at hand, else None: nothing is invented and nothing is an error yet."""
    found, names = sources(loaded, tree, invent=False)
    secrets = load_secrets(found)
    return secrets.value if secrets.value is not None and not secrets.value.missing(names) else None


def all_secrets(loaded: Loaded, tree: Tree) -> Secrets:
    """Return every secret that a tree needs, inventing those it may; LabctlError for the missing ones."""
    found, names = sources(loaded, tree, invent=True)
    secrets = load_secrets(found)
    if secrets.value is None or any(d.is_error for d in secrets.diagnostics):
        raise LabctlError(locate(loaded, secrets.diagnostics))
    require(secrets.value, names)
    return secrets.value


def apply(work: Work, emit: Emit, how: How | None = None) -> fleet.Report:
    """Do what a plan says. LabctlError when a secret is missing; what fails on a host is in the report."""
    secrets = Secrets() if work.plan.destroy else all_secrets(work.loaded, work.tree)
    report = fleet.apply(work.plan, work.tree, secrets, emit, how)
    _remember(work, secrets)
    if work.plan.destroy and report.ok and _all_hosts(work):
        forget_secrets(work)
    return report


def _remember(work: Work, secrets: Secrets) -> None:
    """Keep the hosts as they were left for ``plan --offline``, and forget switches that no longer hold."""
    name = work.loaded.need_placed().lab.name
    remember(name, fleet.observe(work.tree, secrets))
    if work.plan.destroy:
        remember_turns(name, ())
    else:
        settle_turns(work)


def settle_turns(work: Work) -> None:
    """Let hosts forget switches that no longer hold: they must not come back with a later lab.yaml."""
    if work.turns.over:
        turns.write_turns(turns.roots_of(work.tree, work.turns.over), work.turns.over, ())
    roots = turns.roots_of(work.tree, [group.name for group in work.turns.groups])
    remember_turns(work.loaded.need_placed().lab.name, turns.read_turns(roots))


def _all_hosts(work: Work) -> bool:
    return set(work.tree.hosts) == set(work.loaded.need_rendered().tree.hosts)


def forget_secrets(work: Work) -> None:
    """Remove the invented secrets, unless a data volume that stays may have been made with them."""
    if work.plan.data or not _has_volumes(work):
        file = generated_file(work.loaded.need_placed().lab.name)
        file.unlink(missing_ok=True)
        tidy(file.parent)


def _has_volumes(work: Work) -> bool:
    forms = (form for w in work.loaded.need_rendered().workloads for form in w.forms)
    return any(mount.volume for form in forms for mount in getattr(form, "mounts", ()))


def status(
    loaded: Loaded, hosts: Iterable[str] = ()
) -> tuple[tuple[fleet.UnitStatus, ...], Mapping[str, HeldLock], tuple[Diagnostic, ...]]:
    """Return every declared unit with its live state, and the locks of hosts."""
    loaded, found = as_it_stands(loaded)
    tree = tree_of(loaded, hosts)
    rows, problems = fleet.status(tree)
    said = [note for name, note in notes(found).items() if any(u.turns == name for u in tree.units)]
    return rows, locks(tree.roots.values()), locate(loaded, (*said, *problems))


def history(loaded: Loaded, hosts: Iterable[str], last: int) -> tuple[tuple[Entry, ...], tuple[Diagnostic, ...]]:
    """Return who applied what, when, and how it ended, oldest first; and the problems of hosts that were not seen."""
    entries, problems = hosts_history.history(tree_of(loaded, hosts).roots.values(), last)
    return entries, locate(loaded, problems)


def logs(loaded: Loaded, name: str, *, lines: int, follow: bool) -> Iterator[str]:
    """Yield a workload's log lines; LabctlError for a name that the lab does not run."""
    tree = tree_of(loaded)
    if name not in {u.name for u in tree.units}:
        known = ", ".join(f"`{u.name}`" for u in tree.units)
        raise LabctlError(
            [Diagnostic(code="LAB053", summary=f"nothing called `{name}` runs in this lab", hint=f"known: {known}")]
        )
    return _lines(loaded, tree, name, lines=lines, follow=follow)


def _lines(loaded: Loaded, tree: Tree, name: str, *, lines: int, follow: bool) -> Iterator[str]:
    try:
        yield from fleet.logs(tree, name, lines=lines, follow=follow)
    except HostError as error:
        raise LabctlError(locate(loaded, [error.diagnostic])) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a user wants to know after an apply: where the lab answers, with which key, and a request to try."""

    lab: str
    endpoint: str | None = None
    """``http://address:port/v1``, None without a gateway."""
    key: str | None = None
    """Name of the secret that opens it."""
    key_file: Path | None = None
    """The file that holds the key, where labctl knows it."""
    model: str | None = None
    """A chat model to ask."""


def summarise(work: Work) -> Summary:
    """Return where an applied lab answers."""
    rendered = work.loaded.need_rendered()
    lab = rendered.placed.lab
    if rendered.gateway is None:
        return Summary(lab=lab.name)
    key = rendered.gateway.key
    file = generated_file(lab.name) if key in lab.secrets.generate else _env_file(work.loaded)
    chat = sorted(n for e in rendered.endpoints if e.task is Task.CHAT for n in e.serves)
    return Summary(
        lab=lab.name,
        endpoint=f"{rendered.gateway.url}/v1",
        key=key,
        key_file=file,
        model="chat" if "chat" in chat else (chat[0] if chat else None),
    )


def _env_file(loaded: Loaded) -> Path | None:
    source = loaded.need_placed().lab.secrets.source
    return loaded.path / source if isinstance(source, str) and source != "environment" else None
