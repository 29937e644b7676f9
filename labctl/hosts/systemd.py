"""Units that systemd runs, for the whole machine or for one user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from labctl.artefact import Manager, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Check, HostError, Ran, Ref, Site, finished
from labctl.hosts.checks import run_checks
from labctl.plan.observed import SeenUnit, UnitState
from labctl.workload import Start

PROPERTIES: Final = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,NRestarts"
JOB_TIMEOUT: Final = 300
"""Seconds for a start or stop: a unit's own timeouts end it earlier."""
_STATES: Final[Mapping[str, UnitState]] = {
    "active": UnitState.RUNNING,
    "reloading": UnitState.RUNNING,
    "activating": UnitState.STARTING,
    "deactivating": UnitState.STOPPED,
    "inactive": UnitState.STOPPED,
    "failed": UnitState.FAILED,
}
_NOT_EXECUTED: Final[Mapping[str, str]] = {
    "200": "its working folder cannot be entered",
    "203": "its program is not there, or may not be executed",
    "216": "one of its groups (`video`, `render`) does not exist",
    "217": "its user does not exist",
    "226": "its file system view cannot be set up: a folder that it names is missing",
    "243": "a secret that it is given cannot be read",
}
"""Exit statuses of systemd's own, before the program runs (systemd.exec(5), "Process exit codes")."""
_COMES_BACK: Final = frozenset({"enabled", "enabled-runtime", "static", "alias", "indirect", "generated"})


class SystemdManager:
    """``UnitManager`` for systemd, of the machine or (``user``) of the applying user."""

    def __init__(self, site: Site, *, user: bool = False) -> None:
        self._site = site
        self._user = user
        self.manager = Manager.SYSTEMD_USER if user else Manager.SYSTEMD

    def missing(self) -> Diagnostic | None:
        """Systemd has to run here (for a user: with a session bus)."""
        ran = self._systemctl("show", "--property", "Version")
        if ran.ok and "Version=" in ran.out:
            return None
        what = "a systemd user session" if self._user else "a running systemd"
        remedy = (
            f"as root, there: loginctl enable-linger {self._site.shell.me().uid}"
            if self._user
            else "use another target for this host: compose or local"
        )
        return Diagnostic(
            code="LAB105", summary=f"`{self._site.host}` does not have {what}", detail=ran.tail(3), hint=remedy
        )

    def group(self, unit: Unit, definition: bytes) -> str:  # noqa: ARG002 - part of the protocol
        """Units belong to nothing."""
        return ""

    def observe(self, refs: Sequence[Ref]) -> Mapping[str, SeenUnit]:
        """Ask for all units at once."""
        if not refs:
            return {}
        ran = self._systemctl("show", "--property", PROPERTIES, "--", *(ref.id for ref in refs))
        if not ran.ok:
            raise HostError(self._refused("show", ran))
        blocks = [dict(_pairs(block)) for block in ran.out.strip().split("\n\n")]
        return {ref.name: finished(ref, _seen(block), "exited") for ref, block in zip(refs, blocks, strict=True)}

    def validate(self, projects: Sequence[str]) -> None:
        """Let systemd check the files."""
        run_checks(self._site.shell, self.checks(projects))

    def checks(self, projects: Sequence[str]) -> Sequence[Check]:
        """Systemd checks all at once. It exits with 0 for unknown keys: any complaint about these files counts."""
        if not projects:
            return []
        mode = ["--user"] if self._user else []
        return [
            Check(
                argv=(
                    *self._environment(),
                    *("systemd-analyze", *mode, "verify", "--man=no", *(self._site.at(p) for p in projects)),
                ),
                code="LAB113",
                summary=f"systemd on `{self._site.host}` does not accept a unit file",
                names=tuple(PurePosixPath(p).name for p in projects),
            )
        ]

    def begin(self, refs: Sequence[Ref]) -> None:
        """Make systemd read its unit files again; see that a user's units go on when nobody is logged in."""
        if refs:
            self._do("daemon-reload")
            if self._user:
                self._linger()

    def start(self, ref: Ref, *, anew: bool) -> None:
        """Enable and start or restart this unit, without waiting for it to become ready."""
        self.create(ref)
        if anew and ref.unit is not None and ref.unit.start is Start.ONCE:
            # restarted in one go, it would look finished until its second run begins
            self._do("stop", "--", ref.id)
        self._systemctl("reset-failed", "--", ref.id)
        self._do("restart" if anew else "start", "--no-block", "--", ref.id)

    def create(self, ref: Ref) -> None:
        """Enable the unit when it starts with the host, if its file says how; disable it when it does not."""
        wanted = ref.unit is not None and ref.unit.start.value == "always"
        ran = self._systemctl("enable" if wanted else "disable", "--", ref.id)
        if not ran.ok:
            raise HostError(self._refused("enable" if wanted else "disable", ran))

    def stop(self, ref: Ref) -> None:
        """Stop the unit and wait for it."""
        self._do("stop", "--", ref.id)

    def forget(self, ref: Ref) -> None:
        """Stop and disable the unit; its file is removed by whoever owns it."""
        known = self.observe([ref])[ref.name].state
        if known is not UnitState.ABSENT:
            self._do("disable", "--now", "--", ref.id)
            self._systemctl("reset-failed", "--", ref.id)

    def finish(self, refs: Sequence[Ref], *, data: bool) -> None:
        """Units have no project to put away, and the journal is not ours."""

    def settle(self) -> None:
        """Make systemd forget files that are gone."""
        self._do("daemon-reload")

    def leftovers(self, projects: Sequence[Ref]) -> tuple[str, ...]:
        """Name units that still run."""
        seen = self.observe(projects)
        return tuple(f"unit {ref.id}" for ref in projects if seen[ref.name].state.up)

    def logs(self, ref: Ref, *, lines: int, follow: bool) -> Iterator[str]:
        """Read the unit's journal, whichever namespace it is in."""
        scope = ["--user-unit", ref.id] if self._user else ["--namespace=*", "--unit", ref.id]
        tail = ["--lines", str(lines), *(["--follow"] if follow else [])]
        return self._site.shell.stream(["journalctl", *scope, "--no-pager", "--output=cat", *tail])

    def _linger(self) -> None:
        """Keep the user's manager running without a session: it ends with the last one otherwise, and its units too."""
        user, run = str(self._site.shell.me().uid), self._site.shell.run
        if "yes" in run(["loginctl", "show-user", "--property", "Linger", "--value", user]).out:
            return
        ran = run(["loginctl", "--no-ask-password", "enable-linger", user])
        if not ran.ok:
            raise HostError(
                Diagnostic(
                    code="LAB105",
                    summary=f"user units on `{self._site.host}` would end with the last login of their user",
                    detail=ran.tail(3),
                    hint=f"as root, there: loginctl enable-linger {user}",
                )
            )

    def _environment(self) -> list[str]:
        """Return what comes before a command for the user's manager; a login over SSH may know nothing of it."""
        return ["env", f"XDG_RUNTIME_DIR=/run/user/{self._site.shell.me().uid}"] if self._user else []

    def _do(self, *arguments: str) -> None:
        ran = self._systemctl(*arguments)
        if not ran.ok:
            raise HostError(self._refused(arguments[0], ran))

    def _systemctl(self, *arguments: str) -> Ran:
        mode = ["--user"] if self._user else []
        words = [*self._environment(), "systemctl", *mode, "--no-pager", "--no-ask-password", *arguments]
        return self._site.shell.run(words, timeout=JOB_TIMEOUT)

    def _refused(self, verb: str, ran: Ran) -> Diagnostic:
        return Diagnostic(code="LAB114", summary=f"systemctl {verb} failed on `{self._site.host}`", detail=ran.tail())


def _pairs(block: str) -> Iterator[tuple[str, str]]:
    for line in block.splitlines():
        key, _, value = line.partition("=")
        yield key, value


def _seen(block: Mapping[str, str]) -> SeenUnit:
    if block.get("LoadState") in {"not-found", "masked"} and block.get("ActiveState") != "active":
        return SeenUnit(state=UnitState.ABSENT, detail=block.get("LoadState", ""))
    state = _STATES.get(block.get("ActiveState", ""), UnitState.FAILED)
    if block.get("SubState") == "auto-restart":
        state = UnitState.FAILED
    status = block.get("ExecMainStatus", "0")
    detail = block.get("SubState", "") + (f", exit status {status}" if status != "0" else "")
    detail += f": {_NOT_EXECUTED[status]}" if status in _NOT_EXECUTED else ""
    return SeenUnit(
        state=state,
        enabled=block.get("UnitFileState", "") in _COMES_BACK,
        detail=detail,
        restarts=int(block.get("NRestarts") or 0),
    )
