"""Services: what runs beside the models. Each turns its block into workloads; none of them knows a target.

A service is one module with an object ``service`` that satisfies ``Service``, and one line in ``SERVICES``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, cast

from labctl.diagnostics import Diagnostic
from labctl.model.service import ServiceBlock
from labctl.placed import DatabaseLink, PlacedHost
from labctl.values import dataclass
from labctl.workload import Probe, Workload

SERVICES: Final[Mapping[str, str]] = MappingProxyType({"postgres": "labctl.services.postgres:service"})

COMING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alertmanager": "alerts to a webhook",
        "gpu-exporter": "GPU figures for Prometheus",
        "grafana": "dashboards",
        "ingress": "host names and TLS in front of the lab's pages",
        "langfuse": "traces and costs of requests",
        "load-test": "a k6 load test of the gateway",
        "monitoring": "Prometheus, Grafana, Alertmanager and exporters on every GPU host",
        "neo4j": "a graph database and its schema",
        "ocr": "document OCR over the gateway",
        "open-webui": "a chat page on the gateway",
        "phoenix": "traces over OTLP",
        "prometheus": "metrics of gateway, servers and cards",
        "searxng": "web search for chat pages",
        "tailscale": "a private network around the lab",
        "watchdog": "restarts servers that stopped or lost their card, and stops when that does not help",
    }
)
"""Services that lab.yaml already knows and this version cannot render."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAsk:
    """All that a service is told.

    Attributes:
        lab: the lab's name.
        name: its key in ``services``; also its workload's name.
        host: where it runs.
        options: its block of lab.yaml, an instance of its ``options`` type.
        image: the container image; probe: what it has on board to ask for its own health.
        published: the host port when others than its neighbours on a private network reach it, else None.
        bind: the host address of that port.
        port: the port it listens on as a program of the host.
    """

    lab: str
    name: str
    host: PlacedHost
    options: Any
    image: str
    probe: Probe
    published: int | None = None
    bind: str = "127.0.0.1"
    port: int | None = None


class Service(Protocol):
    """What a service module offers."""

    name: str
    options: type[ServiceBlock]
    listens: int | None
    """The port it listens on inside a container, None when it listens on none."""

    def check(self, name: str, options: Any) -> Iterable[Diagnostic]:
        """Return what the schema cannot see; ``name`` is its key in ``services``."""
        ...

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return what has to run."""
        ...

    def database(self, ask: ServiceAsk, host: str, port: int, *, same_host: bool) -> DatabaseLink | None:
        """Return the database that it offers, as a user sees it who reaches it at ``host:port``; None for none."""
        ...


def load(name: str) -> Service:
    """Import the service of that name; KeyError when there is none."""
    module, _, attribute = SERVICES[name].partition(":")
    return cast("Service", getattr(importlib.import_module(module), attribute))
