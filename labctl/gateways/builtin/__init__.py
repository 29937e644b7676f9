"""labctl's own gateway: one API for every model, which keeps loaded what fits and swaps the rest; and a dashboard."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from typing import Final

from labctl.diagnostics import Diagnostic
from labctl.emit import json
from labctl.gateways import WORKLOAD, GatewayAsk
from labctl.gateways.builtin import config
from labctl.gateways.builtin.check import problems
from labctl.gateways.builtin.options import BuiltinBlock
from labctl.gateways.builtin.sources import PACKAGE, libraries, package, shipped
from labctl.workload import (
    ConfigFile,
    Container,
    Endpoint,
    Health,
    ImageBuild,
    Metrics,
    Mount,
    Native,
    Port,
    Probe,
    Workload,
)

LISTEN: Final = 8888
"""Inside a container."""
_CONFIG: Final = "/etc/labctl/gateway.json"
_KEYS: Final = "/etc/labctl/keys"
"""The folder of the file of keys: a file that is put in the place of another is not seen through a mounted file."""


class Builtin:
    """The gateway."""

    name = "builtin"
    options = BuiltinBlock
    calls: tuple[str, ...] = ()

    def check(
        self, options: BuiltinBlock, endpoints: Iterable[Endpoint], databases: Collection[str]
    ) -> Iterable[Diagnostic]:
        """Return what the schema cannot see; it needs no database."""
        del databases
        return problems(options, tuple(endpoints))

    def database(self, options: BuiltinBlock) -> None:
        """It keeps nothing."""

    def master_key(self, options: BuiltinBlock) -> str | None:
        """Return the name of the master key's secret, None when nobody is asked for one."""
        return options.keys.master

    def objections(self, ask: GatewayAsk) -> Iterable[Diagnostic]:  # noqa: ARG002 - the protocol's signature
        """Return nothing: it takes servers as they are."""
        return ()

    def workloads(self, ask: GatewayAsk) -> tuple[Workload, ...]:
        """Return the gateway."""
        options: BuiltinBlock = ask.options
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(_container(ask), _native(ask), _by_itself(ask)),
            product="labctl",
            env=config.environment(ask),
            files=_files(ask),
            ports=(Port(name="http", listen=LISTEN, published=ask.port, bind=ask.bind),),
            health=Health(path="/health", start_period=30),
            memory_limit=options.memory_limit,
            controls=tuple(sorted(name for name, server in ask.residents.items() if server.control)),
            public=("http",),
            metrics=Metrics(kind="labctl", path="/metrics", keyed=options.keys.any),
            origin=ask.origin,
            extra=options.extra,
            description="labctl's gateway and dashboard",
        )
        return (workload,)


def _files(ask: GatewayAsk) -> tuple[ConfigFile, ...]:
    return (ConfigFile(name="gateway.json", content=json.dump(config.build(ask)), target=_CONFIG),)


def _container(ask: GatewayAsk) -> Container:
    """Return the container: an image of the lab's own, or one that is built on the host from labctl's own sources."""
    own = ask.options.image
    file = PurePosixPath(ask.options.keys.file) if ask.options.keys.file else None
    keys = ("--keys", f"{_KEYS}/{file.name}") if file else ()
    return Container(
        image=own or f"labctl-{ask.lab}-gateway:{config.FORMAT}",
        args=("--config", _CONFIG, "--bind", "0.0.0.0", "--port", str(LISTEN), *keys),  # noqa: S104 - its own network
        mounts=(Mount(source=str(file.parent), target=_KEYS, read_only=True),) if file else (),
        probe=Probe.PYTHON,
        sealed=True,
        chosen=own is not None,
        build=None if own else ImageBuild(name=WORKLOAD, files=_sources(ask.image)),
    )


def _native(ask: GatewayAsk) -> Native:
    return Native(program="{python}", args=("-m", PACKAGE, "--config", "{config:gateway.json}", *_told(ask)))


def _told(ask: GatewayAsk) -> tuple[str, ...]:
    file = ask.options.keys.file
    return ("--bind", ask.bind, "--port", str(ask.port), *(("--keys", file) if file else ()))


def _by_itself(ask: GatewayAsk) -> Native:
    """Return the form for a host without labctl: the program comes along, its libraries are the host's."""
    modules = (ConfigFile(name=f"labctl/swap/{name}", content=text, target="") for name, text in package().items())
    files = (
        ConfigFile(name="gateway.py", content=shipped("gateway.py"), target=""),
        ConfigFile(name="labctl/__init__.py", content="", target=""),
        *modules,
    )
    args = ("-B", "{config:gateway.py}", "--config", "{config:gateway.json}", *_told(ask))
    return Native(program=ask.options.python, args=args, files=files, imports=libraries())


def _sources(base: str) -> dict[str, str]:
    """Return the build context: the gateway is a program of its own, so its files are all that it needs."""
    modules = {f"labctl/swap/{name}": text for name, text in package().items()}
    dockerfile = f"FROM {base}\n{shipped('Dockerfile')}"
    return {
        "Dockerfile": dockerfile,
        "requirements.txt": shipped("requirements.txt"),
        "labctl/__init__.py": "",
        **modules,
    }


gateway = Builtin()
