"""Arize Phoenix: traces of requests, taken over OTLP.

Variables and ports: arize.com/docs/phoenix/self-hosting/configuration (6006: page and OTLP over HTTP, 4317: over gRPC).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from labctl.model.base import Duration, Name
from labctl.services import ServiceAsk
from labctl.services.common import Plain, Stored, container, data
from labctl.workload import EnvValue, Health, Workload

LISTEN: Final = 6006
OTLP: Final = 4317
_DATA: Final = "/mnt/data"
_DAY: Final = 86_400


class PhoenixBlock(Stored):
    """Traces of requests. Everybody who reaches the page sees every prompt: keep it inside."""

    retention: Annotated[Duration, Field(description="how long traces are kept, in whole days")] = 30 * _DAY
    database: Annotated[
        Name | None, Field(description="PostgreSQL service for its data; default: SQLite in its volume")
    ] = None


class Phoenix(Plain):
    """The service."""

    name = "phoenix"
    options = PhoenixBlock
    ports = MappingProxyType({"http": LISTEN, "otlp": OTLP})
    page = "http"

    def keeps(self, options: PhoenixBlock) -> str | None:
        """Return the database service that lab.yaml names."""
        return options.database

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the one server."""
        options: PhoenixBlock = ask.options
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(container(ask, data(ask, _DATA)),),
            product="phoenix",
            env={**_environment(ask), **options.extra_env},
            ports=tuple(ask.ports.values()),
            health=Health(path="/healthz", start_period=180),
            after=(ask.database.workload,) if ask.database and ask.database.workload else (),
            memory_limit=options.memory_limit,
            public=("http",),
            origin=ask.origin,
            extra=options.extra,
            description="Phoenix",
        )
        return (workload,)


def _environment(ask: ServiceAsk) -> dict[str, EnvValue]:
    env: dict[str, EnvValue] = {
        "PHOENIX_WORKING_DIR": _DATA,
        "PHOENIX_PORT": str(LISTEN),
        "PHOENIX_GRPC_PORT": str(OTLP),
        "PHOENIX_DEFAULT_RETENTION_POLICY_DAYS": str(max(1, ask.options.retention // _DAY)),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    return env | ({"PHOENIX_SQL_DATABASE_URL": ask.database.url} if ask.database else {})


service = Phoenix()
