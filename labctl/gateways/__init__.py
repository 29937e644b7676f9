"""Gateways: each turns the lab's endpoints into one public API. None of them knows an engine or a target.

A gateway is one module with an object ``gateway`` that satisfies ``Gateway``, and one line in ``GATEWAYS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Final, Protocol, cast

from labctl.diagnostics import Diagnostic, DocPath
from labctl.model.gateway import GatewayBlock
from labctl.placed import DatabaseLink, PlacedHost, ServiceLink
from labctl.values import dataclass
from labctl.workload import Control, Endpoint, Probe, Workload

WORKLOAD: Final = "gateway"
"""The name of the gateway's workload: a lab has one, and behind it such as swap, named for their hosts."""

GATEWAYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "litellm": "labctl.gateways.litellm:gateway",
        "builtin": "labctl.gateways.builtin:gateway",
        "llama-swap": "labctl.gateways.llama_swap:gateway",
        "llama-router": "labctl.gateways.llama_router:gateway",
    }
)


@dataclass(frozen=True, slots=True)
class Linked:
    """An endpoint, and where the gateway reaches its server: ``http://ash:8080``, without ``/v1``.

    Attributes:
        by_name: another gateway is there, which knows the server by its public names.
        key: name of the secret that opens that one, None when it asks for none.
    """

    endpoint: Endpoint
    base_url: str
    by_name: bool = False
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A card, as whoever loads models on it sees it: what people call it, and the bytes that servers may take."""

    label: str
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A server, as whoever starts and stops servers sees it.

    Attributes:
        deployment: its key in ``deployments``.
        memory: card → bytes that it takes at its worst moment.
        startup: seconds that it may take to become healthy; health: the path that tells.
        always: it is started with the lab.
        exclusive: the group of which only one member runs at a time.
        control: how the gateway starts and stops it, None when it cannot.
    """

    deployment: str
    memory: Mapping[str, int]
    startup: int
    health: str
    always: bool
    exclusive: str | None = None
    vision: bool = False
    control: Control | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """On-demand servers of its own host that a gateway runs itself, as its children, and the memory they may take.

    Places are the host's cards and its RAM.

    Attributes:
        servers: by name, as their engines say what has to run.
        takes: server → place → bytes that it takes at its worst moment.
        room: place → bytes that the children may take together: its budget without what runs always.
        apart: server → (exclusive group, deployment): of a group only one deployment is loaded at a time.
        beside: exclusive groups that have members which are not children.
    """

    servers: Mapping[str, Workload] = field(default_factory=dict)
    takes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    room: Mapping[str, int] = field(default_factory=dict)
    apart: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A service of the lab that asks the gateway with a key of its own.

    Attributes:
        name: its workload's name; secret: the name of the secret that holds its key.
        metrics: it is let in to figures and nothing else; otherwise to models and nothing else.
    """

    name: str
    secret: str
    metrics: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAsk:
    """All that a gateway is told.

    Attributes:
        lab: the lab's name; name: what its workload is called; origin: the part of lab.yaml that asks for it.
        host: where it runs.
        options: its block of lab.yaml, an instance of its ``options`` type.
        endpoints: what it may send requests to, in the order of lab.yaml.
        database: where it keeps keys, None for none.
        port/bind: where it is reached on its host.
        image: the container image; probe: what it has on board to ask for its own health.
        cards: the cards of its servers; residents: what it may know to load and unload them, by workload.
        children: the servers that it runs itself, where it does so.
        services: the lab's services, as reached from its host; clients: those that want a key.
    """

    lab: str
    host: PlacedHost
    options: Any
    endpoints: tuple[Linked, ...]
    port: int
    bind: str
    image: str
    probe: Probe
    name: str = WORKLOAD
    origin: DocPath = ("gateway",)
    database: DatabaseLink | None = None
    cards: Mapping[str, Card] = field(default_factory=dict)
    residents: Mapping[str, Resident] = field(default_factory=dict)
    children: Children = Children()
    services: tuple[ServiceLink, ...] = ()
    clients: tuple[Client, ...] = ()


class Gateway(Protocol):
    """What a gateway module offers."""

    name: str
    options: type[GatewayBlock]
    calls: tuple[str, ...]
    """Kinds of services that it asks when the lab has them."""

    def check(self, options: Any, endpoints: Iterable[Endpoint], databases: Collection[str]) -> Iterable[Diagnostic]:
        """Return what the schema cannot see; paths start with ``gateway``. ``databases`` are names of services."""
        ...

    def database(self, options: Any) -> str | None:
        """Return the name of the service that it keeps its keys in, None for none."""
        ...

    def master_key(self, options: Any) -> str | None:
        """Return the name of the secret that opens it, None when it asks for none."""
        ...

    def objections(self, ask: GatewayAsk) -> Iterable[Diagnostic]:
        """Return what it cannot do with the servers that it is given, and what is lost by that."""
        ...

    def workloads(self, ask: GatewayAsk) -> tuple[Workload, ...]:
        """Return what has to run; the first is the gateway itself."""
        ...


def load(name: str) -> Gateway:
    """Import the gateway of that name; KeyError when there is none."""
    module, _, attribute = GATEWAYS[name].partition(":")
    return cast("Gateway", getattr(importlib.import_module(module), attribute))
