"""Operating a lab: plan, apply, destroy, status and logs, as functions of values; no typer, no rich.

A plan is made from a tree and from what is seen on the hosts; apply takes the plan. Secrets are read here and handed to
the writer, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from labctl.artefact import Tree
from labctl.diagnostics import Diagnostic, ExitCode, LabctlError
from labctl.hosts import fleet
from labctl.hosts.events import Event
from labctl.lastknown import last_known, remember, state_folder, tidy
from labctl.plan.diff import diff
from labctl.plan.model import Change, Plan
from labctl.plan.observed import Observed, SecretDigests
from labctl.plan.wire import WireError, plan_from_json, plan_to_value
from labctl.secret_names import needed, source_of
from labctl.secrets import Generated, Secrets, Source, require
from labctl.secrets import load as load_secrets
from labctl.usecases import Loaded
from labctl.values import dataclass
from labctl.workload import Task

Emit = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A loaded lab, the part of its tree that is worked on, and the plan for it."""

    loaded: Loaded
    tree: Tree
    plan: Plan

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


def make_plan(loaded: Loaded, scope: Scope, secrets: Secrets | None = None) -> Work:
    """Look at the hosts and return what would have to be done. Reads no secret: hand values in to compare those too."""
    tree = tree_of(loaded, scope.hosts)
    name = loaded.need_placed().lab.name
    observed = last_known(name, tree) if scope.offline else fleet.observe(tree, secrets)
    digests = fleet.secret_digests(tree, secrets) if secrets is not None else None
    return Work(loaded=loaded, tree=tree, plan=_plan(loaded, tree, observed, digests, scope))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A plan from a file, and the lab that it was made for."""

    plan: Plan
    lab: Path


def save_plan(path: Path, work: Work) -> None:
    """Write a plan to a file, with the place of its lab; LabctlError when that cannot be done."""
    value = {**plan_to_value(work.plan), "source": str(work.loaded.path.resolve())}
    try:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        summary = f"`{path}` cannot be written: {error.strerror}"
        raise LabctlError([Diagnostic(code="LAB088", summary=summary, hint="choose another file")]) from error


def read_plan(path: Path) -> Saved:
    """Read a saved plan; LabctlError when it is none."""
    try:
        text = path.read_bytes()
        return Saved(plan=plan_from_json(text), lab=Path(json.loads(text).get("source", ".")))
    except (OSError, WireError) as error:
        summary = f"`{path}` is not a plan that can be read: {error}"
        hint = "make one with `labctl plan --out plan.json`"
        raise LabctlError([Diagnostic(code="LAB125", summary=summary, hint=hint)]) from error


def check_saved(loaded: Loaded, saved: Plan) -> Work:
    """Return the work of a saved plan; LabctlError (exit code 5) when the lab has changed since."""
    tree = tree_of(loaded, sorted(saved.hosts))
    if saved.lab_digest != lab_digest(loaded) or saved.tree_digest != tree.digest():
        problem = Diagnostic(
            code="LAB124", summary="the lab has changed since the plan was made", hint="make a new plan"
        )
        raise LabctlError([problem], ExitCode.STALE)
    return Work(loaded=loaded, tree=tree, plan=saved)


def generated_file(lab: str) -> Path:
    """Return the file of the secrets that labctl invented for a lab."""
    return state_folder() / "secrets" / f"{lab}.env"


def sources(loaded: Loaded, tree: Tree, *, invent: bool) -> tuple[list[Source], frozenset[str]]:
    """Return the sources of the secrets that a tree needs, and their names.

    With ``invent`` the ones to be generated are made up if they are not there yet; without, only those that are.
    """
    rendered = loaded.need_rendered()
    names = frozenset(needed(w for w in rendered.workloads if w.host in tree.hosts))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """How an apply treats another one's lock."""

    wait: float = 0
    """Seconds to wait for it."""
    break_it: bool = False


def apply(work: Work, emit: Emit, *, exact: bool = False, lock: Lock | None = None) -> fleet.Report:
    """Do what a plan says. LabctlError when a secret is missing; what fails on a host is in the report."""
    lock = lock or Lock()
    secrets = Secrets() if work.plan.destroy else all_secrets(work.loaded, work.tree)
    report = fleet.apply(
        work.plan,
        work.tree,
        secrets,
        emit,
        exact=exact,
        wait_for_lock=lock.wait,
        break_lock=lock.break_it,
    )
    remember(work.loaded.need_placed().lab.name, fleet.observe(work.tree, secrets))
    if work.plan.destroy and report.ok and _all_hosts(work):
        forget_secrets(work)
    return report


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


def status(loaded: Loaded) -> tuple[tuple[fleet.UnitStatus, ...], tuple[Diagnostic, ...]]:
    """Return every declared unit with its live state."""
    rows, problems = fleet.status(tree_of(loaded))
    return rows, locate(loaded, problems)


def logs(loaded: Loaded, name: str, *, lines: int, follow: bool) -> Iterator[str]:
    """Yield a workload's log lines; LabctlError for a name that the lab does not run."""
    tree = tree_of(loaded)
    if name not in {u.name for u in tree.units}:
        known = ", ".join(f"`{u.name}`" for u in tree.units)
        raise LabctlError(
            [Diagnostic(code="LAB053", summary=f"nothing called `{name}` runs in this lab", hint=f"known: {known}")]
        )
    return fleet.logs(tree, name, lines=lines, follow=follow)


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
