"""PostgreSQL in a container, for the gateway's keys. Its data outlives everything that labctl does unasked."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from labctl.model.base import SecretName
from labctl.placed import DatabaseLink
from labctl.services import ServiceAsk
from labctl.services.common import Plain, Stored, data, secret
from labctl.workload import Container, Health, SecretRef, Start, Workload

LISTEN: Final = 5432
_DATA: Final = "/var/lib/postgresql/data"
"""Where images up to 17 keep their data (docker-library/docs, postgres)."""
_IDENTIFIER: Final = r"^[a-z_][a-z0-9_]{0,62}$"

CREATE: Final = """\
for name; do
  found=$(psql --no-psqlrc -qtA --command "SELECT 1 FROM pg_database WHERE datname = '$name'")
  [ "$found" = 1 ] || createdb "$name"
done
"""
"""Makes the databases that are not there; psql and createdb read PGHOST, PGUSER, PGPASSWORD and PGDATABASE."""


class PostgresBlock(Stored):
    """A PostgreSQL server."""

    database: Annotated[str, Field(description="database that is created at the first start", pattern=_IDENTIFIER)] = (
        "litellm"
    )
    user: Annotated[str, Field(description="its owner", pattern=_IDENTIFIER)] = "litellm"
    password: Annotated[SecretName, Field(description="secret that holds the owner's password")] = "POSTGRES_PASSWORD"  # noqa: S105 - a name


class Postgres(Plain):
    """The service."""

    name = "postgres"
    options = PostgresBlock
    ports = MappingProxyType({"postgres": LISTEN})

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the server, and a task that makes the databases of other services."""
        options: PostgresBlock = ask.options
        container = Container(
            image=options.image or ask.image,
            chosen=options.image is not None,
            mounts=(data(ask, _DATA),),
            probe=ask.probe,
            shm_size=128 << 20,
        )
        ready = ("pg_isready", "--username", options.user, "--dbname", options.database)
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(container,),
            product="postgresql",
            env={
                "POSTGRES_DB": options.database,
                "POSTGRES_USER": options.user,
                "POSTGRES_PASSWORD": secret(options.password),
                **options.extra_env,
            },
            ports=tuple(ask.ports.values()),
            health=Health(port="postgres", command=ready, interval=10, retries=5, start_period=60),
            memory_limit=options.memory_limit,
            origin=ask.origin,
            extra=options.extra,
            description="PostgreSQL",
        )
        return (workload, *((_databases(ask, workload),) if ask.databases else ()))

    def database(self, ask: ServiceAsk, host: str, port: int, *, same_host: bool) -> DatabaseLink:
        """Return its database as a user sees it who reaches it at ``host:port``."""
        options: PostgresBlock = ask.options
        return DatabaseLink(
            service=ask.name,
            workload=ask.name if same_host else None,
            host=host,
            port=port,
            name=options.database,
            user=options.user,
            password=SecretRef(options.password),
        )


def task_name(service: str) -> str:
    """Return the name of the task that makes further databases."""
    return f"{service}-databases"


def _databases(ask: ServiceAsk, server: Workload) -> Workload:
    options: PostgresBlock = ask.options
    port = server.port("postgres")
    form = Container(
        image=options.image or ask.image,
        chosen=options.image is not None,
        entrypoint=("/bin/sh",),
        args=("-euc", CREATE, "sh", *ask.databases),
        probe=ask.probe,
    )
    return Workload(
        name=task_name(ask.name),
        host=ask.host.name,
        forms=(form,),
        product="postgresql",
        env={
            "PGHOST": ask.name,
            "PGPORT": str(port.listen),
            "PGDATABASE": options.database,
            "PGUSER": options.user,
            "PGPASSWORD": secret(options.password),
        },
        after=(ask.name,),
        start=Start.ONCE,
        serves_to=(),
        origin=ask.origin,
        description="databases of other services",
    )


service = Postgres()
