"""Services: what runs beside the models. Each turns its block into workloads; none of them knows a target.

A service is one module with an object ``service`` that satisfies ``Service``, and one line in ``SERVICES``. What is the
same for most of them stands in ``labctl.services.common``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Protocol, cast

from labctl.diagnostics import Diagnostic, DocPath
from labctl.model.service import ServiceBlock
from labctl.placed import CardBudget, DatabaseLink, GatewayLink, PlacedHost, Scrape, ServiceLink
from labctl.values import dataclass
from labctl.workload import Port, Probe, Workload

SERVICES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alertmanager": "labctl.services.alertmanager:service",
        "gpu-exporter": "labctl.services.gpu_exporter:service",
        "grafana": "labctl.services.grafana:service",
        "monitoring": "labctl.services.monitoring:service",
        "neo4j": "labctl.services.neo4j:service",
        "open-webui": "labctl.services.open_webui:service",
        "phoenix": "labctl.services.phoenix:service",
        "postgres": "labctl.services.postgres:service",
        "prometheus": "labctl.services.prometheus:service",
        "searxng": "labctl.services.searxng:service",
    }
)

COMING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ingress": "host names and TLS in front of the lab's pages",
        "langfuse": "traces and costs of requests",
        "load-test": "a k6 load test of the gateway",
        "ocr": "document OCR over the gateway",
        "tailscale": "a private network around the lab",
        "watchdog": "restarts servers that stopped or lost their card, and stops when that does not help",
    }
)
"""Services that lab.yaml already knows and this version cannot render."""


class Access(StrEnum):
    """What a service wants of the gateway, with a key of its own."""

    MODELS = "models"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One instance of a service on one host. Most blocks of lab.yaml are one part, a bundle is several."""

    name: str
    kind: str
    host: str
    options: Any
    origin: DocPath


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAsk:
    """All that a service is told.

    Attributes:
        lab: the lab's name.
        name: its workload's name: its key in ``services``, unless it is part of a bundle or on several hosts.
        host: where it runs.
        options: its block of lab.yaml, an instance of its ``options`` type.
        image: the container image; probe: what it has on board to ask for its own health.
        ports: its ports by name, as they are reached.
        origin: the part of lab.yaml that asked for it.
        gateway: the lab's gateway, None when there is none or nothing is wanted of it.
        others: the services that it may call, as reached from its host.
        database: where it keeps its data, None for its own volume.
        databases: names of further databases that others want of it.
        scrapes: everything that shows figures, for those that collect them.
        budgets: what is planned for the cards of each host.
    """

    lab: str
    name: str
    host: PlacedHost
    options: Any
    image: str
    probe: Probe
    ports: Mapping[str, Port] = field(default_factory=dict)
    origin: DocPath = ()
    gateway: GatewayLink | None = None
    others: tuple[ServiceLink, ...] = ()
    database: DatabaseLink | None = None
    databases: tuple[str, ...] = ()
    scrapes: tuple[Scrape, ...] = ()
    budgets: tuple[CardBudget, ...] = ()

    def other(self, kind: str, port: str = "http") -> ServiceLink | None:
        """Return the first service of a kind whose port it can reach, None when there is none."""
        return next((o for o in self.others if o.kind == kind and port in o.addresses), None)


class Service(Protocol):
    """What a service module offers."""

    name: str
    options: type[ServiceBlock]
    ports: Mapping[str, int]
    """The ports that it listens on inside a container, by name; the first is the one that ``port:`` moves."""
    page: str | None
    """The port that people open in a browser, None when they do not."""
    calls: tuple[str, ...]
    """Kinds of services that it asks, so that they have to be reachable from its host."""
    watches: bool
    """Whether it collects the figures of everything."""
    watched: bool
    """Whether it has figures of its own."""
    open: bool
    """Whether programs outside the lab's own are meant to call it."""

    def check(self, name: str, options: Any) -> Iterable[Diagnostic]:
        """Return what the schema cannot see; ``name`` is its key in ``services``."""
        ...

    def parts(self, name: str, options: Any, hosts: Mapping[str, PlacedHost]) -> Iterable[Part]:
        """Return what it consists of; ``hosts`` are all of the lab's."""
        ...

    def image(self, options: Any, host: PlacedHost) -> str:
        """Return the name under which the table of builds has its image."""
        ...

    def client(self, options: Any) -> tuple[Access, str] | None:
        """Return what it wants of the gateway and the name of the secret with its key; None for nothing."""
        ...

    def keeps(self, options: Any) -> str | None:
        """Return the name of the database service that it keeps its data in, None for none."""
        ...

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return what has to run; the first is the service itself."""
        ...

    def database(self, ask: ServiceAsk, host: str, port: int, *, same_host: bool) -> DatabaseLink | None:
        """Return the database that it offers, as a user sees it who reaches it at ``host:port``; None for none."""
        ...


def load(name: str) -> Service:
    """Import the service of that name; KeyError when there is none."""
    module, _, attribute = SERVICES[name].partition(":")
    return cast("Service", getattr(importlib.import_module(module), attribute))
