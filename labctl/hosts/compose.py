"""Units that are services of a compose project.

What runs is read from the engine's own labels (``com.docker.compose.project``, ``…service``), never from a dry run of
``docker compose up``, which has been seen to replace running containers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from labctl.artefact import Manager, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Check, HostError, Ran, Ref, Site, finished
from labctl.hosts.checks import run_checks
from labctl.plan.observed import SeenUnit, UnitState

FINGERPRINT: Final = "labctl.fingerprint"
"""The label that tells what a container was made from."""
PROJECT: Final = "com.docker.compose.project"
SERVICE: Final = "com.docker.compose.service"
UP_TIMEOUT: Final = 1800
"""Seconds for ``up``: it stops the old container, and pulls where `extra` says that it shall."""
_HINTS: Final[Mapping[str, str]] = {
    "could not select device driver": (
        "its Docker lacks the NVIDIA container toolkit: install nvidia-container-toolkit and run "
        "`nvidia-ctk runtime configure`, or set the host's `gpu_access`"
    ),
    "unknown or invalid runtime name": (
        "its Docker does not know the runtime `nvidia`: run `nvidia-ctk runtime configure`, or set the host's "
        "`gpu_access`"
    ),
    "CDI device": (
        "its Docker finds no description of the card: run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, let"
        ' Docker use it (`"features": {"cdi": true}`), or set the host\'s `gpu_access`'
    ),
    "error gathering device information": "the host has no such device file: is the card's driver loaded?",
    "address already in use": "another program of the host has that port: see `ss -ltnp` there, or change `port`",
    "port is already allocated": "another container has that port: see `docker ps` there, or change `port`",
}
"""What Docker's messages mean for lab.yaml and the host."""
STOP_TIMEOUT: Final = 300
"""Seconds for a stop: longer than any ``stop_grace_period``."""


class ComposeManager:
    """``UnitManager`` for compose services of one host."""

    manager = Manager.COMPOSE

    def __init__(self, site: Site) -> None:
        self._site = site

    def missing(self) -> Diagnostic | None:
        """There has to be a Docker engine that this user may use, and the compose plug-in."""
        engine = self._docker("version", "--format", "{{.Server.Version}}")
        if not engine.ok:
            return self._absent(
                "an answering Docker engine", engine, "install Docker, or start it; add your user to it"
            )
        plugin = self._docker("compose", "version", "--short")
        if not plugin.ok:
            return self._absent("`docker compose`", plugin, "install the package docker-compose-plugin")
        return None

    def group(self, unit: Unit, definition: bytes) -> str:
        """The project's name, from the file's own ``name`` or, as compose does, its folder."""
        try:
            value = YAML(typ="safe", pure=True).load(definition.decode())
        except (YAMLError, UnicodeDecodeError):
            value = None
        name = value.get("name") if isinstance(value, dict) else None
        return str(name) if name else unit.project.split("/")[-2] if "/" in unit.project else "default"

    def observe(self, refs: Sequence[Ref]) -> Mapping[str, SeenUnit]:
        """List the containers of all projects and inspect them at once."""
        containers = self._containers({ref.group for ref in refs})
        return {ref.name: finished(ref, _seen(containers.get((ref.group, ref.id))), "exit status 0") for ref in refs}

    def validate(self, projects: Sequence[str]) -> None:
        """Let compose check each file."""
        run_checks(self._site.shell, self.checks(projects))

    def checks(self, projects: Sequence[str]) -> Sequence[Check]:
        """Compose reads each file, and what it names, as it would to start it."""
        return [
            Check(
                argv=("docker", "compose", "--file", self._site.at(project), "config", "--quiet"),
                code="LAB111",
                summary=f"docker compose on `{self._site.host}` does not accept `{project}`",
                timeout=60,
            )
            for project in projects
        ]

    def begin(self, refs: Sequence[Ref]) -> None:
        """Nothing to announce: compose reads its file every time."""

    def start(self, ref: Ref, *, anew: bool) -> None:
        """Bring exactly this service up."""
        force = ["--force-recreate"] if anew else []
        self._up(ref, "-d", *force)

    def create(self, ref: Ref) -> None:
        """Make the container and leave it as it is; a running one is only replaced where its definition changed."""
        if ref.unit is not None and self._running(ref):
            self._up(ref, "-d")
            return
        self._up(ref, "--no-start", "--force-recreate")

    def stop(self, ref: Ref) -> None:
        """Stop the service's containers."""
        for container in self._ids(ref):
            self._check(ref, self._docker("stop", container, timeout=STOP_TIMEOUT))

    def forget(self, ref: Ref) -> None:
        """Stop and remove the service's containers; named volumes stay."""
        self.stop(ref)
        for container in self._ids(ref):
            self._check(ref, self._docker("rm", "--force", container))

    def finish(self, refs: Sequence[Ref], *, data: bool) -> None:
        """Take the projects down: their networks and, with ``data``, their volumes. Needs no file."""
        for group in sorted({ref.group for ref in refs}):
            volumes = ["--volumes"] if data else []
            ran = self._docker("compose", "-p", group, "down", "--remove-orphans", *volumes, timeout=STOP_TIMEOUT)
            if not ran.ok:
                raise HostError(_refused(group, ran))

    def settle(self) -> None:
        """Compose keeps nothing of a file that is gone."""

    def leftovers(self, projects: Sequence[Ref]) -> tuple[str, ...]:
        """Name containers that are still there."""
        found = self._containers({ref.group for ref in projects})
        return tuple(sorted(f"container {c['Name'].lstrip('/')}" for c in found.values()))

    def logs(self, ref: Ref, *, lines: int, follow: bool) -> Iterator[str]:
        """Read the containers' logs through compose."""
        argv = ["docker", "compose", "-p", ref.group, "logs", "--no-color", "--no-log-prefix", "--tail", str(lines)]
        return self._site.shell.stream([*argv, *(["--follow"] if follow else []), ref.id])

    def _up(self, ref: Ref, *arguments: str) -> None:
        """Bring a service up; its image is on the host by now (``labctl.hosts.pulling``) and is not asked for again."""
        pulled = ref.unit is not None and ref.unit.image is not None
        never = ["--pull", "never"] if pulled else []
        words = ("up", *arguments, "--no-deps", *never, ref.id)
        self._check(ref, self._compose(ref.project, *words, timeout=UP_TIMEOUT))

    def _running(self, ref: Ref) -> bool:
        container = self._containers({ref.group}).get((ref.group, ref.id))
        return _seen(container).state.up

    def _containers(self, groups: set[str]) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """Return the containers of some projects by (project, service)."""
        ids: list[str] = []
        for group in sorted(groups):
            ids += self._list(f"{PROJECT}={group}")
        if not ids:
            return {}
        ran = self._docker("inspect", *ids)
        found = json.loads(ran.out) if ran.out.strip() else []
        return {(c["Config"]["Labels"][PROJECT], c["Config"]["Labels"].get(SERVICE, "")): c for c in found}

    def _ids(self, ref: Ref) -> list[str]:
        return self._list(f"{PROJECT}={ref.group}", f"{SERVICE}={ref.id}")

    def _list(self, *labels: str) -> list[str]:
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        ran = self._docker("ps", "--all", "--quiet", "--no-trunc", *filters)
        if not ran.ok:
            raise HostError(_refused("docker ps", ran))
        return ran.out.split()

    def _docker(self, *arguments: str, timeout: float = 60) -> Ran:
        return self._site.shell.run(["docker", *arguments], timeout=timeout)

    def _compose(self, project: str, *arguments: str, timeout: float) -> Ran:
        return self._docker("compose", "--file", self._site.at(project), *arguments, timeout=timeout)

    def _check(self, ref: Ref, ran: Ran) -> None:
        if not ran.ok:
            raise HostError(_refused(ref.name, ran))

    def _absent(self, what: str, ran: Ran, hint: str) -> Diagnostic:
        return Diagnostic(
            code="LAB104",
            summary=f"`{self._site.host}` has no {what}".replace("no an ", "no "),
            detail=ran.tail(3),
            hint=hint,
        )


def _refused(name: str, ran: Ran) -> Diagnostic:
    summary, said = f"docker refused `{name}` (exit status {ran.code})", ran.tail()
    hint = next((hint for text, hint in _HINTS.items() if text in said), "")
    return Diagnostic(code="LAB115", summary=summary, detail=said, hint=hint)


def _seen(container: Mapping[str, Any] | None) -> SeenUnit:
    if container is None:
        return SeenUnit(state=UnitState.ABSENT)
    state, config = container["State"], container["Config"]
    return SeenUnit(
        state=_state(state),
        fingerprint=(config.get("Labels") or {}).get(FINGERPRINT),
        image=config.get("Image"),
        detail=_detail(state),
        restarts=int(container.get("RestartCount") or 0),
    )


def _state(state: Mapping[str, Any]) -> UnitState:
    health = (state.get("Health") or {}).get("Status", "")
    match state["Status"]:
        case "running":
            return {"starting": UnitState.STARTING, "unhealthy": UnitState.UNHEALTHY}.get(health, UnitState.RUNNING)
        case "restarting" | "dead":
            return UnitState.FAILED
        case "exited" if state.get("ExitCode"):
            return UnitState.FAILED
        case _:
            return UnitState.STOPPED


def _detail(state: Mapping[str, Any]) -> str:
    if state["Status"] == "exited":
        return f"exit status {state.get('ExitCode')}"
    return str(state["Status"])
