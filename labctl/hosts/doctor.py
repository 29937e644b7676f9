"""What a host still needs before a lab can be applied to it, in words, each with its remedy. Nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final

from labctl.artefact import HostRoot, Manager, ModelFile, Tree
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, Ran, Site
from labctl.hosts.connect import connect, managers_of
from labctl.hosts.state import read_lock
from labctl.plan.observed import Facts, SeenHost
from labctl.quantity import format_size
from labctl.values import dataclass
from labctl.workload import GpuAccess

TIMEOUT: Final = 20.0
"""Seconds for a question to a program of the host."""
OLDEST: Final = (3, 11)
"""The Python that labctl's own programs need where they run by themselves; its helper gets by with less."""
_LOOK: Final = """\
import sys, importlib.util as u
print("%d.%d" % sys.version_info[:2], *(name for name in sys.argv[1:] if not u.find_spec(name)))
"""
_RULES: Final = "etc/polkit-1/"
_RULES_SINCE: Final = 106
"""The first polkit (0.106) with rules in JavaScript; Debian 11 and Ubuntu 22.04 have 0.105 (polkit's NEWS)."""
CDI_FOLDERS: Final = ("/etc/cdi", "/var/run/cdi")
_MANAGERS: Final = {
    Manager.COMPOSE: "docker",
    Manager.SYSTEMD: "systemd",
    Manager.SYSTEMD_USER: "systemd (user)",
    Manager.SUPERVISOR: "supervisor",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. ``found`` says what is there, ``problem`` what is wrong with it."""

    name: str
    found: str = ""
    problem: Diagnostic | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A host and all that was looked at there."""

    host: str
    address: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Nothing keeps a lab from being applied to it."""
        return not any(c.problem is not None and c.problem.is_error for c in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is known of a host before it is examined.

    Attributes:
        root: how it is reached; ``part``: its part of the tree.
        seen: as it was observed just now.
        differences: where it is not what lab.yaml says.
        access: how its containers get NVIDIA cards; None when they need none.
        imports: what labctl's own programs import, by the Python of the host that runs them.
    """

    root: HostRoot
    part: Tree
    seen: SeenHost
    differences: tuple[Diagnostic, ...] = ()
    access: GpuAccess | None = None
    imports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def examine(subject: Subject) -> Examined:
    """Look at everything that an apply will need. Stops at a host that cannot be reached."""
    root = subject.root
    checks = [Check(name="cluster", found="answers")] if root.cluster is not None else []
    if root.cluster is not None:
        checks = [Check(name="cluster", problem=problem) for problem in subject.seen.why] or checks
        return Examined(host=root.host, address=root.cluster.context or "", checks=tuple(checks))
    try:
        site = connect(root)
        checks.append(_connection(site))
    except HostError as error:
        checks.append(Check(name="connection", problem=error.diagnostic))
        return Examined(host=root.host, address=root.address, checks=tuple(checks))
    for look in (_system, _rights, _managers, _programs, _polkit, _toolkit, _cards, _disk, _lock):
        checks += _safely(look, site, subject)
    said = {check.problem for check in checks}
    checks += [Check(name="state", problem=p) for p in subject.seen.why if p not in said and not _told(p, said)]
    return Examined(host=root.host, address=root.address, checks=tuple(checks))


def _told(problem: Diagnostic, said: Iterable[Diagnostic | None]) -> bool:
    """Whether the same is said of a manager already."""
    return any(other is not None and other.summary == problem.summary for other in said)


def _safely(look: Callable[[Site, Subject], Iterator[Check]], site: Site, subject: Subject) -> list[Check]:
    """Look, and make of what the host refuses a problem of its own."""
    try:
        return list(look(site, subject))
    except HostError as error:
        return [Check(name=look.__name__.lstrip("_"), problem=error.diagnostic)]
    except OSError as error:
        summary = f"`{site.host}` cannot be looked at: {error.strerror or error}"
        problem = Diagnostic(code="LAB101", summary=summary, detail=str(error.filename or ""))
        return [Check(name=look.__name__.lstrip("_"), problem=problem)]


def _connection(site: Site) -> Check:
    me = site.shell.me()
    who = "root" if me.uid == 0 else f"user {me.uid}"
    return Check(name="connection", found=f"{me.name} as {who}, Python {me.python}")


def _system(site: Site, subject: Subject) -> Iterator[Check]:  # noqa: ARG001 - like its neighbours
    facts = subject.seen.facts
    if facts is not None:
        found = f"{facts.system or facts.kernel}, {facts.arch}, {facts.cores} cores, {format_size(facts.memory)} of RAM"
        yield Check(name="system", found=found)


def _rights(site: Site, subject: Subject) -> Iterator[Check]:
    """Whether labctl may write where the lab's files go."""
    folder = site.state("").rstrip("/")
    script = 'f=$1; while [ ! -e "$f" ]; do f=$(dirname "$f"); done; test -w "$f" && echo "$f"'
    ran = site.shell.run(["sh", "-c", script, "sh", folder], timeout=TIMEOUT)
    if ran.ok:
        yield Check(name="rights", found=f"may write {subject.root.root}")
        return
    remedy = "log in as root, or let the login use sudo (`ssh: {sudo: true}`), or choose another folder for the host"
    summary = f"labctl may not write {folder} on `{site.host}`"
    yield Check(name="rights", problem=Diagnostic(code="LAB184", summary=summary, hint=remedy))


def _managers(site: Site, subject: Subject) -> Iterator[Check]:
    wanted = {u.manager for u in subject.part.units} | ({Manager.COMPOSE} if subject.part.images else set())
    managers = managers_of(site)
    for name in sorted(wanted & managers.keys()):
        problem = managers[name].missing()
        yield Check(name=_MANAGERS[name], found="" if problem else _version(site, name), problem=problem)


def _version(site: Site, manager: Manager) -> str:
    match manager:
        case Manager.COMPOSE:
            engine = _said(site.shell.run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=TIMEOUT))
            compose = _said(site.shell.run(["docker", "compose", "version", "--short"], timeout=TIMEOUT))
            return f"Docker {engine}, compose {compose}"
        case Manager.SYSTEMD | Manager.SYSTEMD_USER:
            return _said(site.shell.run(["systemctl", "--version"], timeout=TIMEOUT))
        case _:
            return "comes with labctl"


def _said(ran: Ran) -> str:
    return next(iter(ran.out.strip().splitlines()), "?")


def _programs(site: Site, subject: Subject) -> Iterator[Check]:
    """Whether labctl's own programs find what they import in the host's Python."""
    for python, modules in subject.imports.items():
        ran = site.shell.run([python, "-c", _LOOK, *modules], timeout=TIMEOUT)
        version, *missing = ran.out.split()[: len(modules) + 1] if ran.ok else ("",)
        problem = python_problem(site.host, python, version, missing)
        yield Check(name="python", found="" if problem else f"{python} {version}, and all libraries", problem=problem)


def python_problem(host: str, python: str, version: str, missing: Iterable[str]) -> Diagnostic | None:
    """Return why a Python of a host will not do for labctl's programs: it is not there, too old, or lacks modules."""
    names, own = ", ".join(missing), "name another one: `gateway: {python: /path/to/python3}`"
    if not version:
        return Diagnostic(code="LAB187", summary=f"`{host}` has no {python}", hint=f"install it, or {own}")
    if tuple(int(part) for part in version.split(".")) < OLDEST:
        summary = f"{python} on `{host}` is Python {version}, and the gateway needs 3.11 or newer"
        return Diagnostic(code="LAB187", summary=summary, hint=own)
    if not names:
        return None
    hint = f"install them there (docs/gateway.md names them), or {own}"
    return Diagnostic(code="LAB187", summary=f"{python} on `{host}` lacks {names}", hint=hint)


def _polkit(site: Site, subject: Subject) -> Iterator[Check]:
    """Whether anybody reads the rules by which a user may start and stop units."""
    if any(artefact.path.startswith(_RULES) for artefact in subject.part.artefacts):
        ran = site.shell.run(["sh", "-c", "pkcheck --version"], timeout=TIMEOUT)
        problem = polkit_problem(site.host, ran.out)
        yield Check(name="polkit", found="" if problem else _said(ran), problem=problem)


def polkit_problem(host: str, said: str) -> Diagnostic | None:
    """Return why polkit would not read the lab's rules, from what ``pkcheck --version`` says: 0.105, 121, 126."""
    number = said.strip().rpartition(" ")[2].removeprefix("0.")
    if not number.isdigit():
        summary = f"`{host}` has no polkit, by whose rules the gateway may start and stop servers"
        return Diagnostic(code="LAB187", summary=summary, hint="install the package polkitd there")
    if int(number) < _RULES_SINCE:
        summary = f"polkit 0.{number} on `{host}` does not read rules, and the gateway may not start and stop servers"
        return Diagnostic(
            code="LAB187", summary=summary, hint="let a user's units do it: `systemd: {user_units: true}`"
        )
    return None


def _toolkit(site: Site, subject: Subject) -> Iterator[Check]:
    """Whether Docker can hand NVIDIA cards to containers, in the way that the lab asks for."""
    if subject.access is None:
        return
    ran = site.shell.run(["docker", "info", "--format", "{{json .}}"], timeout=TIMEOUT)
    missing = toolkit_problem(site.host, subject.access, _json(ran.out) if ran.ok else {}, _cdi_files(site))
    yield Check(name="container toolkit", found=f"{subject.access} works" if missing is None else "", problem=missing)


def _cdi_files(site: Site) -> tuple[str, ...]:
    ran = site.shell.run(["sh", "-c", f"ls {' '.join(CDI_FOLDERS)} 2>/dev/null"], timeout=TIMEOUT)
    return tuple(word for word in ran.out.split() if word.endswith((".yaml", ".json")) and "nvidia" in word)


def toolkit_problem(
    host: str, access: GpuAccess, info: Mapping[str, Any], cdi_files: Iterable[str]
) -> Diagnostic | None:
    """Return why containers on a host would not get NVIDIA cards, from what ``docker info`` says and its CDI files."""
    remedy = "install nvidia-container-toolkit and run `nvidia-ctk runtime configure --runtime=docker`; restart Docker"
    if access is GpuAccess.CDI:
        if not tuple(cdi_files):
            summary = f"`{host}` has no CDI description of its NVIDIA cards"
            hint = "install nvidia-container-toolkit and run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
            return Diagnostic(code="LAB185", summary=summary, hint=hint)
        if not info.get("CDISpecDirs"):
            summary = f"Docker on `{host}` does not look for CDI devices"
            hint = 'set `"features": {"cdi": true}` in /etc/docker/daemon.json (Docker 25 or later) and restart Docker'
            return Diagnostic(code="LAB185", summary=summary, hint=hint)
        return None
    runtimes = info.get("Runtimes")
    if isinstance(runtimes, Mapping) and "nvidia" in runtimes:
        return None
    return Diagnostic(code="LAB185", summary=f"Docker on `{host}` has no NVIDIA container toolkit", hint=remedy)


def _json(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _cards(site: Site, subject: Subject) -> Iterator[Check]:  # noqa: ARG001 - like its neighbours
    """Say what cards there are, and everything in which the host is not what lab.yaml says."""
    facts = subject.seen.facts
    if facts is not None and facts.gpus:
        yield Check(name="cards", found=_names(facts))
    for problem in subject.differences:
        yield Check(name="lab.yaml", problem=problem)


def _names(facts: Facts) -> str:
    counts: dict[str, int] = {}
    for gpu in facts.gpus:
        name = f"{gpu.name or gpu.vendor.upper()}{f' (driver {gpu.driver})' if gpu.driver else ''}"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{number} × {name}" for name, number in counts.items())


def _disk(site: Site, subject: Subject) -> Iterator[Check]:
    """Whether the models that are still to be fetched fit."""
    models = [a for a in subject.part.artefacts if isinstance(a, ModelFile)]
    missing = [m for m in models if m.path not in subject.seen.files]
    needed = sum(m.size or 0 for m in missing)
    free = site.shell.free_bytes(site.at(missing[0].path if missing else ""))
    if needed <= free:
        models_said = f", {format_size(needed)} of models to come" if needed else ""
        yield Check(name="disk", found=f"{format_size(free)} free{models_said}")
        return
    summary = f"`{site.host}` has {format_size(free)} free, and models of {format_size(needed)} are to come"
    hint = "make room, or choose another folder for models (`models:` of the host)"
    yield Check(name="disk", problem=Diagnostic(code="LAB186", summary=summary, hint=hint))


def _lock(site: Site, subject: Subject) -> Iterator[Check]:  # noqa: ARG001 - like its neighbours
    lock = read_lock(site)
    if lock is not None:
        words = f"left behind by {lock.holder}; the next apply takes it" if lock.stale else f"held by {lock.holder}"
        yield Check(name="lock", found=words)
