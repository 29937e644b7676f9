"""Small labs on this machine: real supervisord, real HTTP servers, real files."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from labctl.artefact import Artefact, File, HostRoot, Image, Manager, SecretFile, Tree, Unit
from labctl.hosts import fleet
from labctl.hosts.events import ChangeDone, Event, LogLine
from labctl.plan.diff import diff
from labctl.plan.model import Plan
from labctl.secrets import Secret, Secrets
from labctl.workload import Health, SecretRef, SecretText, Start

HOST = "desk"
KEY = "poison-Sentinel-5e1f$\"'\\x"
SECRETS = Secrets({"API_KEY": Secret(KEY)})

SERVER = """
import http.server, os, pathlib, sys
folder, port, slow = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
import time; time.sleep(slow)
text = pathlib.Path(folder, "index.html").read_text()
with open(os.path.join(folder, "..", "starts.txt"), "a") as log: log.write(os.path.basename(folder) + "\\n")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(text.encode())
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
"""Reads its file once, at start: what it answers tells what it was started with. Notes every start."""


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Program:
    """One program of the lab."""

    text: str = "hello"
    port: int = 0
    after: tuple[str, ...] = ()
    start: Start = Start.ALWAYS
    turns: str | None = None
    slow: float = 0
    command: str = ""
    secret: bool = False
    start_period: int = 20
    version: str = "one"


@dataclass
class Lab:
    """A lab under supervisord in one folder."""

    root: Path
    programs: dict[str, Program] = field(default_factory=dict)
    extra: list[Artefact | Image] = field(default_factory=list)
    secrets: Secrets = SECRETS
    events: list[Event] = field(default_factory=list)

    def tree(self) -> Tree:
        """Return what it renders to."""
        items: list[Artefact | Image | Unit | HostRoot] = [
            HostRoot(host=HOST, root=str(self.root), state="state", managers=(Manager.SUPERVISOR,)),
            *self.extra,
        ]
        if self.programs:
            items.append(File(host=HOST, path="server.py", content=SERVER.encode()))
            items.append(File(host=HOST, path="supervisord.conf", content=self._conf().encode()))
        for name, program in self.programs.items():
            items += self._program(name, program)
        return Tree.of(items)

    def plan(self, *, destroy: bool = False, data: bool = False) -> Plan:
        """Look at this machine and plan."""
        tree = self.tree()
        observed = fleet.observe(tree, self.secrets)
        digests = fleet.secret_digests(tree, self.secrets)
        return diff(tree, observed, digests, lab="test", lab_digest="d", destroy=destroy, data=data)

    def apply(self, plan: Plan | None = None, *, exact: bool = False, wait: float = 0) -> fleet.Report:
        """Plan, unless there is a plan, and apply."""
        self.events.clear()
        plan = plan or self.plan()
        return fleet.apply(
            plan, self.tree(), self.secrets, self.events.append, fleet.How(exact=exact, wait_for_lock=wait)
        )

    def destroy(self, *, data: bool = True) -> fleet.Report:
        """Remove everything."""
        return self.apply(self.plan(destroy=True, data=data))

    def change(self, name: str, **changes: str | int | float | bool) -> None:
        """Change a program's facts."""
        self.programs[name] = replace(self.programs[name], **changes)  # type: ignore[arg-type]

    def done(self) -> list[str]:
        """Return the addresses that the last apply changed, in order."""
        return [e.address for e in self.events if isinstance(e, ChangeDone) and e.problem is None]

    def log(self) -> str:
        """Return the log lines of the last apply."""
        return "\n".join(e.text for e in self.events if isinstance(e, LogLine))

    def starts(self) -> list[str]:
        """Return which programs were started so far, in order."""
        path = self.root / "starts.txt"
        return path.read_text().split() if path.exists() else []

    def _program(self, name: str, program: Program) -> Iterable[Artefact | Unit]:
        paths = [f"{name}/index.html"]
        yield File(host=HOST, path=paths[0], content=program.text.encode())
        if program.secret:
            paths.append(f"secrets/{name}.env")
            yield SecretFile(host=HOST, path=paths[1], entries={"KEY": SecretText(("k:", SecretRef("API_KEY")))})
        yield Unit(
            host=HOST,
            name=name,
            id=name,
            manager=Manager.SUPERVISOR,
            project="supervisord.conf",
            fingerprint=f"{program.version} {program.port} {program.command} {program.slow}",
            files=tuple(paths),
            after=program.after,
            health=Health(path="/", interval=1, retries=1, timeout=1, start_period=program.start_period),
            check=f"http://127.0.0.1:{program.port}/" if program.port else None,
            start=program.start,
            turns=program.turns,
        )

    def _conf(self) -> str:
        sections = {
            "supervisord": {"pidfile": "%(here)s/d.pid", "logfile": "%(here)s/logs/d.log", "directory": "%(here)s"},
            "unix_http_server": {"file": "%(here)s/s.sock"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            **{f"program:{n}": self._section(n, p) for n, p in self.programs.items()},
        }
        return "\n".join(f"[{name}]\n{_pairs(pairs)}" for name, pairs in sections.items())

    def _section(self, name: str, program: Program) -> Mapping[str, str]:
        serve = f"%(ENV_LABCTL_PYTHON)s server.py {self.root}/{name} {program.port} {program.slow}"
        return {
            "command": program.command or serve,
            "autostart": "false",
            "autorestart": "false" if program.start is Start.ONCE else "unexpected",
            "startsecs": "0" if program.start is Start.ONCE else "1",
            "startretries": "1",
            "environment": f'VERSION="{program.version}"',
            "stdout_logfile": f"%(here)s/logs/{name}.log",
            "redirect_stderr": "true",
        }


def _pairs(pairs: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in pairs.items())


def snapshot(folder: Path) -> dict[str, str]:
    """Return every path below a folder, with the content of files."""
    found = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_text(errors="replace") if p.is_file() else "-" for p in found}
