"""Managers of servers: Docker's socket, systemd, supervisor. Each does three things and nothing more."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import urllib.parse
import xmlrpc.client
from collections.abc import Iterable
from typing import Any, Final

import aiohttp

from labctl.swap.backends import Driver, DriverError, Run
from labctl.swap.config import Backend

DOCKER: Final = "/var/run/docker.sock"
STOP_SECONDS: Final = 30
"""What a server is given to end by itself before it is killed."""
LINES: Final = 5
"""Lines of a server's log that are shown when it did not start."""
_TAIL: Final = 2000
_FRAME: Final = re.compile(rb"[\x00-\x02]\x00\x00\x00[\x00-\xff]{4}")
_CONTROL: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_DO_NOT_WAIT: Final = False
_NOT_FOUND: Final = 404


class Docker:
    """Containers that exist already, through the engine's socket. Only start, stop, inspect and logs are ever asked."""

    def __init__(self, at: str = "") -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=at or DOCKER))

    async def start(self, id: str) -> None:
        """``POST /containers/ID/start``; a running one stays as it is."""
        if await self._ask("POST", f"/containers/{urllib.parse.quote(id)}/start") is None:
            message = "there is no such container; run `labctl apply`"
            raise DriverError(message)

    async def stop(self, id: str) -> None:
        """``POST /containers/ID/stop``, which answers when the container has ended."""
        await self._ask("POST", f"/containers/{urllib.parse.quote(id)}/stop?t={STOP_SECONDS}")

    async def state(self, id: str) -> Run:
        """``GET /containers/ID/json``. One that has ended and is about to be started again counts as ``RETRYING``."""
        found = await self._ask("GET", f"/containers/{urllib.parse.quote(id)}/json")
        state = (found or {}).get("State", {})
        if state.get("Restarting"):
            return Run.RETRYING
        return Run.RUNNING if state.get("Running") else Run.STOPPED

    async def words(self, id: str) -> str:
        """``GET /containers/ID/logs``: frames of eight bytes (stream, length) and text, unless it has a terminal."""
        path = f"/containers/{urllib.parse.quote(id)}/logs?stdout=1&stderr=1&tail={LINES}"
        try:
            async with self._session.get(f"http://docker{path}", timeout=aiohttp.ClientTimeout(total=5)) as response:
                raw = await response.read() if response.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError, OSError):
            return ""
        return _last(_FRAME.sub(b"", raw).decode(errors="replace"))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _ask(self, method: str, path: str) -> dict[str, Any] | None:
        """Return the answer, None when there is no such container."""
        timeout = aiohttp.ClientTimeout(total=STOP_SECONDS + 30)
        try:
            async with self._session.request(method, f"http://docker{path}", timeout=timeout) as response:
                text = await response.json() if response.content_type == "application/json" else {}
                if response.status == _NOT_FOUND:
                    return None
                if response.status >= 400:
                    raise DriverError(str(text.get("message") or f"Docker answered {response.status}"))
                return dict(text)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"Docker does not answer: {str(error) or type(error).__name__}"
            raise DriverError(message) from error


class Systemd:
    """Units of the system or, ``user``, of the user's own manager, through ``systemctl``."""

    def __init__(self, *, user: bool = False) -> None:
        self._argv = ("systemctl", *(("--user",) if user else ()), "--no-ask-password")

    async def start(self, id: str) -> None:
        """``systemctl start --no-block``: health is asked elsewhere."""
        await self._run("start", "--no-block", id)

    async def stop(self, id: str) -> None:
        """``systemctl stop``, which returns when the unit has ended; a failed state is forgotten."""
        await self._run("stop", id)

    async def state(self, id: str) -> Run:
        """``systemctl show``. A unit that waits for its turn to be started is inactive, and has a job to start it."""
        text = await self._run("show", "--property=ActiveState,SubState,Job", id)
        facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        if facts.get("SubState") == "auto-restart":
            return Run.RETRYING
        if facts.get("ActiveState") not in {"inactive", "failed", None}:
            return Run.RUNNING
        if facts.get("Job", "0") in {"", "0"}:
            return Run.STOPPED
        jobs = await self._run("list-jobs", "--no-legend", "--plain", id)
        kinds = {row.split()[2] for row in jobs.splitlines() if len(row.split()) > 2}
        return Run.RUNNING if kinds & {"start", "restart"} else Run.STOPPED

    async def words(self, id: str) -> str:
        """``journalctl``; "" where its user may not read the journal."""
        kind = "--user-unit" if "--user" in self._argv else "--unit"
        argv = ("journalctl", kind, id, f"--lines={LINES}", "--output=cat", "--no-pager", "--quiet")
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
        except OSError:
            return ""
        out, _ = await process.communicate()
        return _last(out.decode(errors="replace"))

    async def close(self) -> None:
        """Nothing is open."""

    async def _run(self, *argv: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
        except OSError as error:
            message = f"systemctl: {error.strerror}"
            raise DriverError(message) from error
        out, err = await process.communicate()
        if process.returncode:
            raise DriverError(err.decode(errors="replace").strip() or f"systemctl ended with {process.returncode}")
        return out.decode(errors="replace")


class Supervisor:
    """Programs of supervisord, through its socket."""

    def __init__(self, at: str) -> None:
        self._at = at

    async def start(self, id: str) -> None:
        """``startProcess`` without waiting; one that runs stays as it is."""
        await self._ask("startProcess", id, _DO_NOT_WAIT, already="ALREADY_STARTED")

    async def stop(self, id: str) -> None:
        """``stopProcess``, which returns when the program has ended."""
        await self._ask("stopProcess", id, already="NOT_RUNNING")

    async def state(self, id: str) -> Run:
        """``getProcessInfo``."""
        found = await self._ask("getProcessInfo", id)
        return Run.RUNNING if found["statename"] in {"RUNNING", "STARTING", "STOPPING"} else Run.STOPPED

    async def words(self, id: str) -> str:
        """``tailProcessStdoutLog``; labctl's programs write both streams there."""
        try:
            text, _, _ = await self._ask("tailProcessStdoutLog", id, 0, _TAIL)
        except DriverError:
            return ""
        return _last(str(text))

    async def close(self) -> None:
        """Nothing is open."""

    async def _ask(self, method: str, *arguments: Any, already: str = "") -> Any:
        try:
            return await asyncio.to_thread(self._call, method, arguments)
        except xmlrpc.client.Fault as fault:
            if already and fault.faultString.startswith(already):
                return {}
            raise DriverError(fault.faultString) from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            message = f"supervisord does not answer at {self._at}: {error}"
            raise DriverError(message) from error

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        with xmlrpc.client.ServerProxy("http://supervisor", transport=_Unix(self._at)) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)


class _Unix(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """Return the one connection of this transport."""
        connection = _UnixConnection(self._path)
        self._connection = host, connection  # what close() closes
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=STOP_SECONDS + 30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def _last(text: str) -> str:
    """Return the last lines of a log, without what is not meant to be shown."""
    lines = [line.rstrip() for line in _CONTROL.sub("", text).splitlines() if line.strip()]
    return "\n".join(lines[-LINES:])[-_TAIL:]


def make(backends: Iterable[Backend]) -> dict[tuple[str, str], Driver]:
    """Return the drivers that some backends need, by kind and place."""
    found: dict[tuple[str, str], Driver] = {}
    for backend in backends:
        kind, at = key = (backend.driver.kind, backend.driver.at)
        if kind == "none" or key in found:
            continue
        found[key] = _make(kind, at)
    return found


def _make(kind: str, at: str) -> Driver:
    match kind:
        case "docker":
            return Docker(at)
        case "systemd":
            return Systemd()
        case "systemd-user":
            return Systemd(user=True)
        case "supervisor":
            return Supervisor(at)
    message = f"there is no driver {kind!r}"
    raise DriverError(message)
