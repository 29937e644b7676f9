"""Units run by supervisord, started by labctl as the user's own daemon: the local target.

Talks XML-RPC over the daemon's unix socket (supervisor's documented API, ``http://supervisord.org/api.html``). The
daemon outlives the apply that started it. Programs have ``autostart=false``: labctl starts each when it is its turn.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import socket
import sys
import time
import xmlrpc.client
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from labctl.artefact import Manager, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Check, HostError, Ref, Site, finished
from labctl.hosts.supervisor_conf import SupervisorConf
from labctl.plan.observed import SeenUnit, UnitState

TIMEOUT: Final = 15.0
"""Seconds that the daemon may take to start, to end, and to answer."""
RIVAL: Final = 3.0
"""Seconds after a failed start in which a daemon that an earlier apply began to start may answer."""
KEPT_ENVIRONMENT: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR"),
)
SOCKET_PATH_LIMIT: Final = 95
"""Bytes of a unix socket's path: Linux allows 107, and supervisord first binds one with ``.`` and its number behind."""
ALREADY: Final = frozenset({10, 60, 70, 90})
"""Faults that mean "it is so already": BAD_NAME, ALREADY_STARTED, NOT_RUNNING, ALREADY_ADDED (supervisor/xmlrpc.py)."""
ENDED: Final = "exit status 0"
_STATES: Final[Mapping[str, UnitState]] = {
    "STOPPED": UnitState.STOPPED,
    "STARTING": UnitState.STARTING,
    "RUNNING": UnitState.RUNNING,
    "BACKOFF": UnitState.FAILED,
    "STOPPING": UnitState.STOPPED,
    "EXITED": UnitState.FAILED,
    "FATAL": UnitState.FAILED,
    "UNKNOWN": UnitState.FAILED,
}


class SupervisorManager:
    """``UnitManager`` for the programs of one host's ``supervisord.conf``."""

    manager = Manager.SUPERVISOR

    def __init__(self, site: Site) -> None:
        self._site = site

    def missing(self) -> Diagnostic | None:
        """The package ``supervisor`` has to be importable by the Python that runs labctl."""
        if importlib.util.find_spec("supervisor") is not None:
            return None
        return Diagnostic(
            code="LAB106",
            summary=f"`{self._site.host}` uses the local target, which needs the package `supervisor`",
            hint='install it: pip install "labctl[local]"',
        )

    def group(self, unit: Unit, definition: bytes) -> str:
        """The daemon's socket: recorded, so that it can be reached even when its file is gone."""
        return SupervisorConf.read(definition, self._site.folder, unit.project).socket

    def observe(self, refs: Sequence[Ref]) -> Mapping[str, SeenUnit]:
        """Ask each daemon for all its programs; without a daemon every unit is absent."""
        known: dict[str, Mapping[str, Any]] = {}
        for project, some in _by_project(refs):
            rpc = self._rpc(some[0])
            infos = [] if rpc is None else rpc("getAllProcessInfo")
            known |= {f"{project}:{info['name']}": info for info in infos}
        return {ref.name: finished(ref, _seen(known.get(f"{ref.project}:{ref.id}")), ENDED) for ref in refs}

    def validate(self, projects: Sequence[str]) -> None:
        """Read each file as supervisord does."""
        for project in projects:
            problem = self._conf(project).problem
            if problem:
                raise HostError(_invalid(self._site.at(project), problem))

    def checks(self, projects: Sequence[str]) -> Sequence[Check]:  # noqa: ARG002 - part of the protocol
        """No program: ``validate`` reads the files itself."""
        return ()

    def begin(self, refs: Sequence[Ref]) -> None:
        """Start the daemon where it does not run. Programs are re-read one by one, by ``start`` and ``create``."""
        for _, some in _by_project(refs):
            if self._rpc(some[0]) is None:
                self._launch(some[0])

    def start(self, ref: Ref, *, anew: bool) -> None:
        """Load the program's present definition and start it."""
        rpc = self._need(ref)
        if anew:
            _tolerate(lambda: rpc("stopProcess", ref.id))
        self._reload(rpc, ref)
        _tolerate(lambda: rpc("startProcess", ref.id, False))  # noqa: FBT003 - XML-RPC has no keywords

    def create(self, ref: Ref) -> None:
        """Load the program's present definition."""
        self._reload(self._need(ref), ref)

    def stop(self, ref: Ref) -> None:
        """Stop the program and wait for its end."""
        rpc = self._rpc(ref)
        if rpc is not None:
            _tolerate(lambda: rpc("stopProcess", ref.id))

    def forget(self, ref: Ref) -> None:
        """Stop the program and drop it from the daemon."""
        rpc = self._rpc(ref)
        if rpc is not None:
            _tolerate(lambda: rpc("stopProcess", ref.id))
            _tolerate(lambda: rpc("removeProcessGroup", ref.id))

    def finish(self, refs: Sequence[Ref], *, data: bool) -> None:
        """End the daemon; remove its pid file and socket and, with ``data``, logs and what programs keep."""
        for project, some in _by_project(refs):
            conf, rpc = self._conf(project), self._rpc(some[0])
            if rpc is not None:
                pid = int(rpc("getPID"))
                rpc("shutdown")
                self._await_end(pid, project)
            self._site.shell.remove([p for p in (conf.socket, some[0].group, conf.pidfile) if p])
            for folder in conf.log_folders if data else ():
                # logs of programs that are gone, and rotated ones, are named nowhere any more
                self._site.shell.remove(str(log) for log in Path(folder).glob("*.log*"))
                self._site.shell.remove_empty(folder)
            if data and conf.data:
                self._site.shell.run(["rm", "-rf", "--", *conf.data])

    def settle(self) -> None:
        """A program that is gone was dropped already."""

    def leftovers(self, projects: Sequence[Ref]) -> tuple[str, ...]:
        """Name daemons that still answer."""
        return tuple(f"supervisord of {p}" for p, some in _by_project(projects) if self._rpc(some[0]) is not None)

    def logs(self, ref: Ref, *, lines: int, follow: bool) -> Iterator[str]:
        """Read the program's log files, as its section names them."""
        paths = [p for p in self._conf(ref.project).logs_of(ref.id) if Path(p).exists()]
        for path in paths:
            yield from _tail(Path(path), lines)
        if follow and paths:
            yield from self._site.shell.stream(["tail", "--quiet", "-n", "0", "-F", *paths])

    def _reload(self, rpc: Call, ref: Ref) -> None:
        """Make the daemon hold this program's definition from the file, touching no other program."""
        added, changed, removed = rpc("reloadConfig")[0]
        del removed
        if ref.id in changed:
            _tolerate(lambda: rpc("stopProcess", ref.id))
            _tolerate(lambda: rpc("removeProcessGroup", ref.id))
        if ref.id in changed or ref.id in added:
            _tolerate(lambda: rpc("addProcessGroup", ref.id))

    def _launch(self, ref: Ref) -> None:
        conf, project = self._conf(ref.project), self._site.at(ref.project)
        if len(conf.socket.encode()) > SOCKET_PATH_LIMIT:
            raise HostError(_too_long(conf.socket))
        self._prepare_folders(conf)
        # a fixed environment: what runs must not depend on the terminal that apply was typed into, nor see its secrets
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        variables = [f"{name}={value}" for name, value in kept.items()]
        # without -n supervisord puts itself into the background, in a session of its own
        daemon = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", project]
        ran = self._site.shell.run(
            ["env", "-i", *variables, f"LABCTL_PYTHON={sys.executable}", *daemon], cwd=self._site.folder, timeout=60
        )
        # it fails when another start of it is under way, left by an apply that was killed: then that one is waited for
        deadline = time.monotonic() + (TIMEOUT if ran.ok else RIVAL)
        while self._rpc(ref) is None:
            if time.monotonic() > deadline:
                raise HostError(_invalid(project, _silence(conf) if ran.ok else ran.tail()))
            time.sleep(0.05)

    def _await_end(self, pid: int, project: str) -> None:
        deadline = time.monotonic() + TIMEOUT * 2
        while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
            if time.monotonic() > deadline:
                raise HostError(
                    Diagnostic(code="LAB117", summary=f"supervisord of `{project}` (process {pid}) does not end")
                )
            time.sleep(0.05)

    def _prepare_folders(self, conf: SupervisorConf) -> None:
        """Make the folders of logs, pid file and socket: supervisord refuses to start without them."""
        parents = {str(Path(p).parent) for p in (conf.socket, conf.pidfile) if p}
        for folder in sorted({*parents, *conf.log_folders}):
            self._site.shell.make_folders(folder)

    def _conf(self, project: str) -> SupervisorConf:
        content = self._site.shell.read(self._site.at(project)) or b""
        return SupervisorConf.read(content, self._site.folder, project)

    def _rpc(self, ref: Ref) -> Call | None:
        """Return a way to call the daemon, None when it does not run.

        It is looked for where the file on the host says, where the lab says and where it was last started: somebody
        may have edited or deleted the file.
        """
        recorded = ref.record.group if ref.record is not None else ""
        for path in dict.fromkeys((self._conf(ref.project).socket, ref.group, recorded)):
            if path and Path(path).exists():
                call = Call(path)
                try:
                    call("getState")
                except (ConnectionError, FileNotFoundError):
                    continue
                return call
        return None

    def _need(self, ref: Ref) -> Call:
        rpc = self._rpc(ref)
        if rpc is None:
            raise HostError(Diagnostic(code="LAB116", summary=f"supervisord of `{ref.project}` does not answer"))
        return rpc


class Call:
    """Calls ``supervisor.*`` methods over a unix socket."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, method: str, *arguments: object) -> Any:
        """Call a method; xmlrpc.client.Fault when the daemon refuses, OSError when it is not there."""
        body = xmlrpc.client.dumps(cast("tuple[Any, ...]", arguments), f"supervisor.{method}")
        connection = _UnixConnection(self._path)
        try:
            connection.request("POST", "/RPC2", body.encode(), {"Content-Type": "text/xml"})
            answer = connection.getresponse().read()
        finally:
            connection.close()
        return xmlrpc.client.loads(answer.decode())[0][0]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT * 4)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _tolerate(action: Callable[[], object]) -> None:
    """Do it; that it is so already is fine."""
    try:
        action()
    except xmlrpc.client.Fault as fault:
        if fault.faultCode not in ALREADY:
            raise HostError(Diagnostic(code="LAB116", summary=f"supervisord refused: {fault.faultString}")) from fault


def _seen(info: Mapping[str, Any] | None) -> SeenUnit:
    if info is None:
        return SeenUnit(state=UnitState.ABSENT)
    name = str(info["statename"])
    state = _STATES[name]
    if name == "EXITED" and info["exitstatus"] == 0:
        return SeenUnit(state=UnitState.STOPPED, detail=ENDED)
    since = float(info["now"] - info["start"]) if state.up else None
    return SeenUnit(state=state, detail=str(info["spawnerr"] or info["description"]), since=since)


def _by_project(refs: Sequence[Ref]) -> list[tuple[str, list[Ref]]]:
    """Group units by their configuration file, sorted."""
    return [(project, [r for r in refs if r.project == project]) for project in sorted({r.project for r in refs})]


def _tail(path: Path, lines: int) -> list[str]:
    with path.open(errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=lines)]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _silence(conf: SupervisorConf) -> str:
    tail = "\n".join(_tail(Path(conf.logfile), 20)) if Path(conf.logfile).is_file() else ""
    return f"supervisord did not come up\n{tail}"


def _invalid(path: str, detail: str) -> Diagnostic:
    return Diagnostic(code="LAB112", summary=f"supervisord does not accept `{path}`", detail=detail)


def _too_long(path: str) -> Diagnostic:
    return Diagnostic(
        code="LAB118",
        summary=f"the path of supervisord's socket has {len(path.encode())} bytes, more than {SOCKET_PATH_LIMIT}",
        detail=path,
        hint="choose a shorter folder for this host's root",
    )
