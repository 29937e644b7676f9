"""llama.cpp's own router: ``llama-server`` without a model, which runs one of itself per preset and counts them.

Options and the presets' file: tools/server/README.md, tools/server/server-models.cpp and common/preset.cpp of
ggml-org/llama.cpp, 00dd081; what it does was seen with a build of 7e4c0a9.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Annotated, ClassVar, Final

from pydantic import Field

from labctl.diagnostics import At, Diagnostic, Severity
from labctl.emit import ini
from labctl.gateways import WORKLOAD, GatewayAsk, parent
from labctl.gateways.combinations import TooManyError, any_of, clusters, largest
from labctl.model.base import Block, Duration, Name, SecretName
from labctl.model.gateway import GatewayBlock
from labctl.model.unknown import unknown_name
from labctl.workload import (
    ConfigFile,
    Container,
    Endpoint,
    EnvValue,
    Health,
    Native,
    Port,
    Probe,
    SecretRef,
    SecretText,
    Workload,
)

LISTEN: Final = 8080
"""Inside a container, as the images' own HEALTHCHECK asks (.devops/cuda.Dockerfile, b11549)."""
WHO: Final = "llama.cpp's router"
_FILE: Final = "presets.ini"
_TARGET: Final = "/etc/llama.cpp/presets.ini"
_ITS_OWN: Final = frozenset({"host", "port", "alias", "a"})
"""Options that the router gives its children itself; further names are said apart (server-models.cpp)."""
_TROUBLE: Final = r"[;#\n\r\0]"
_NO_CACHE: Final = "/nonexistent"
"""Models in llama.cpp's download cache would be served, too, and nobody has counted them (server-models.cpp)."""
_NUMBER: Final = re.compile(r"-\d+(\.\d+)?")


class LlamaRouterKeys(Block):
    """Who may ask."""

    master: Annotated[SecretName | None, Field(description="secret that holds the key; it may do everything")] = None


class LlamaRouterBlock(GatewayBlock):
    """llama.cpp's router mode: one endpoint for llama.cpp servers that it runs itself, so many at a time."""

    swaps: ClassVar[bool] = True
    parent: ClassVar[bool] = True

    port: Annotated[int, Field(description="host port of the endpoint and its page", ge=1, le=65535)] = 8888
    keys: LlamaRouterKeys = LlamaRouterKeys()
    preload: Annotated[tuple[Name, ...], Field(description="deployments that are loaded at the start")] = ()
    idle: Annotated[
        Duration | None, Field(description="let a model that nobody asked for so long sleep: it keeps its place")
    ] = None
    timeout: Annotated[Duration | None, Field(description="longest a request may be silent")] = None


class LlamaRouter:
    """The gateway."""

    name = "llama-router"
    options = LlamaRouterBlock
    calls: tuple[str, ...] = ()

    def check(
        self, options: LlamaRouterBlock, endpoints: Iterable[Endpoint], databases: Collection[str]
    ) -> Iterable[Diagnostic]:
        """Return what the schema cannot see; it needs no database."""
        del databases
        deployments = {str(e.origin[-1]) for e in endpoints}
        for i, name in enumerate(options.preload):
            if name not in deployments:
                yield unknown_name("LAB053", "deployment", name, deployments, ("gateway", "preload", i))

    def database(self, options: LlamaRouterBlock) -> None:
        """It keeps nothing."""

    def master_key(self, options: LlamaRouterBlock) -> str | None:
        """Return the name of the key's secret, None when nobody is asked for one."""
        return options.keys.master

    def objections(self, ask: GatewayAsk) -> Iterable[Diagnostic]:
        """Return what the router cannot run or serve, and a note on what counting loses."""
        why = "its presets end a value at `;`, `#` and line breaks"
        found = [*parent.refusals(ask, WHO, _TROUBLE, why), *_strangers(ask), *_names(ask)]
        yield from found
        if not found:
            yield from _counted(ask)

    def workloads(self, ask: GatewayAsk) -> tuple[Workload, ...]:
        """Return the router, which has the cards and the models of all its children."""
        options: LlamaRouterBlock = ask.options
        workload = Workload(
            name=WORKLOAD,
            host=ask.host.name,
            forms=_forms(ask),
            env=_environment(ask),
            files=(ConfigFile(name=_FILE, content=presets(ask), target=_TARGET),),
            ports=(Port(name="http", listen=LISTEN, published=ask.port, bind=ask.bind),),
            gpu=parent.claim(ask),
            health=Health(path="/health", start_period=60),
            memory_limit=options.memory_limit,
            models=parent.models(ask),
            public=("http",),
            origin=("gateway",),
            extra=options.extra,
            description="llama.cpp's router and the servers that it runs",
        )
        return (workload,)


def presets(ask: GatewayAsk) -> str:
    """Return the presets: per model what its server's command line says, under the name that people call it."""
    sections = []
    for linked in ask.endpoints:
        server = ask.children.servers[linked.endpoint.workload]
        name, *more = linked.endpoint.serves
        pairs = [(key, value) for key, value in _options(parent.command(ask, server)[1:]) if key not in _ITS_OWN]
        pairs += [("alias", ",".join(more))] if more else []
        pairs += [("load-on-startup", "true")] if _is_preloaded(ask, server.name) else []
        sections.append((name, pairs))
    return ini.dump(sections)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield a command line's options as a preset has them; one without a value is ``true``. The last one counts."""
    found: dict[str, str] = {}
    for word, following in zip(words, (*words[1:], "-"), strict=True):
        if _is_option(word):
            found[word.lstrip("-")] = "true" if _is_option(following) else following
    yield from found.items()


def _is_option(word: str) -> bool:
    return word.startswith("-") and not _NUMBER.fullmatch(word)


def _is_preloaded(ask: GatewayAsk, name: str) -> bool:
    return ask.residents[name].deployment in ask.options.preload


def _arguments(ask: GatewayAsk, presets_at: str, host: str, port: int) -> tuple[str, ...]:
    """Return the router's arguments. Whatever stands here counts for every child, too."""
    idle, timeout = ask.options.idle, ask.options.timeout
    args = ["--models-preset", presets_at, "--models-max", str(max(1, any_of(ask.children)))]
    args += ["--host", host, "--port", str(port)]
    args += ["--sleep-idle-seconds", str(idle)] if idle else []
    return (*args, *(("--timeout", str(timeout)) if timeout else ()))


def _forms(ask: GatewayAsk) -> tuple[Container | Native, ...]:
    locked = parent.locks_memory(ask)
    place = f"{{config:{_FILE}}}"
    native = Native(program="llama-server", args=_arguments(ask, place, ask.bind, ask.port), locked_memory=locked)
    own = parent.containers(ask)
    if not own:
        return (native,)
    container = Container(
        image=ask.options.image or own[0].image,
        args=_arguments(ask, _TARGET, "0.0.0.0", LISTEN),  # noqa: S104 - a container's own network
        mounts=parent.mounts(ask),
        probe=own[0].probe if ask.options.image is None else Probe.CURL,
        locked_memory=locked,
    )
    return (container, native)


def _environment(ask: GatewayAsk) -> dict[str, EnvValue]:
    """Return the one environment of all children, and the keys: a list with commas, which children are not told."""
    master = ask.options.keys.master
    shared: dict[str, EnvValue] = {"LLAMA_CACHE": _NO_CACHE}
    for server in ask.children.servers.values():
        shared |= server.env
    if master is None:
        return shared
    keys = [SecretRef(master), *(SecretRef(client.secret) for client in ask.clients if not client.metrics)]
    parts = [part for key in keys for part in (",", key)][1:]
    return {**shared, "LLAMA_API_KEY": SecretText(tuple(parts))}


def _strangers(ask: GatewayAsk) -> Iterator[Diagnostic]:
    servers = ask.children.servers
    for linked in ask.endpoints:
        endpoint = linked.endpoint
        if endpoint.workload not in servers:
            why = "it is not started on demand on the router's host, and the router passes requests to nobody else"
            yield parent.refused(WHO, endpoint.workload, endpoint.origin, why)
    first = next(iter(servers.values()), None)
    for server in servers.values():
        if server.child is not None and server.child.program == "{python}":
            yield parent.refused(WHO, server.name, server.origin, "an `embedded` llama.cpp has no router")
        elif first is not None and dict(server.env) != dict(first.env):
            why = f"its environment is not that of `{first.name}`, and all have the router's"
            yield parent.refused(WHO, server.name, (*server.origin, "env"), why)


def _names(ask: GatewayAsk) -> Iterator[Diagnostic]:
    for public, servers in parent.servers_of(ask).items():
        if len(servers) > 1:
            endpoint = next(x.endpoint for x in ask.endpoints if x.endpoint.workload == servers[1])
            why = f"a name stands for one model, and `{servers[0]}` has it"
            yield parent.nameless(WHO, public, endpoint, why, "give each its own name in `serves`")


def _counted(ask: GatewayAsk) -> Iterator[Diagnostic]:
    """Yield an error when more are loaded at the start than may be, and a note when more than that would fit."""
    number = any_of(ask.children)
    started = [name for name in ask.children.servers if _is_preloaded(ask, name)]
    if len(started) > number:
        yield Diagnostic(
            code="LAB223",
            summary=f"{len(started)} models are loaded at the start, and any {number} fit together",
            path=("gateway", "preload"),
            at=At.KEY,
            hint=f"list at most {number}",
        )
    most = _most(ask)
    if most is None or most > number:
        of = f"up to {most} would fit" if most else "many more combinations would fit"
        yield Diagnostic(
            code="LAB226",
            severity=Severity.NOTE,
            summary=f"the router keeps {number} of {len(ask.children.servers)} models loaded, where {of}",
            path=("gateway", "engine"),
            hint="it counts models: `engine: llama-swap` or `engine: builtin` keep loaded what fits",
        )


def _most(ask: GatewayAsk) -> int | None:
    """Return how many children fit together at best, None when that is not worth finding out."""
    try:
        found = [largest(kinds, ask.children.room) for kinds in clusters(ask.children)]
    except TooManyError:
        return None
    return sum(max(sum(number for _, number in combination.counts) for combination in some) for some in found)


gateway = LlamaRouter()
