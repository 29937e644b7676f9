"""PostgreSQL in a container, for the gateway's keys. Its data outlives everything that labctl does unasked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.model.base import SecretName
from labctl.model.service import ServiceBlock
from labctl.placed import DatabaseLink
from labctl.services import ServiceAsk
from labctl.workload import Container, Health, Mount, Port, SecretRef, SecretText, Workload

LISTEN: Final = 5432
_DATA: Final = "/var/lib/postgresql/data"
"""Where images up to 17 keep their data (docker-library/docs, postgres)."""
_IDENTIFIER: Final = r"^[a-z_][a-z0-9_]{0,62}$"


class PostgresBlock(ServiceBlock):
    """A PostgreSQL server."""

    database: Annotated[str, Field(description="database that is created at the first start", pattern=_IDENTIFIER)] = (
        "litellm"
    )
    user: Annotated[str, Field(description="its owner", pattern=_IDENTIFIER)] = "litellm"
    password: Annotated[SecretName, Field(description="secret that holds the owner's password")] = "POSTGRES_PASSWORD"  # noqa: S105 - a name
    volume: Annotated[
        str | None,
        Field(description="volume that holds the data; default: the service's name and `-data`"),
    ] = None


class Postgres:
    """The service."""

    name = "postgres"
    options = PostgresBlock
    listens = LISTEN

    def check(self, name: str, options: PostgresBlock) -> Iterable[Diagnostic]:
        """Return a problem when it is to run on several hosts, since they would be several databases."""
        if len(options.places) > 1:
            yield Diagnostic(
                code="LAB138",
                summary=f"`{name}` is one database and cannot run on {len(options.places)} hosts",
                path=("services", name, "hosts"),
                hint="write `host:` and one name, or a second service with `kind: postgres`",
            )

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the server; its volume keeps its name whatever the lab's folder is called."""
        options: PostgresBlock = ask.options
        volume = Mount(source=options.volume or f"{ask.name}-data", target=_DATA, volume=True)
        container = Container(image=options.image or ask.image, mounts=(volume,), probe=ask.probe, shm_size=128 << 20)
        ready = ("pg_isready", "--username", options.user, "--dbname", options.database)
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(container,),
            env={
                "POSTGRES_DB": options.database,
                "POSTGRES_USER": options.user,
                "POSTGRES_PASSWORD": SecretText((SecretRef(options.password),)),
            },
            ports=(Port(name="postgres", listen=LISTEN, published=ask.published, bind=ask.bind),),
            health=Health(port="postgres", command=ready, interval=10, retries=5, start_period=60),
            memory_limit=options.memory_limit,
            origin=("services", ask.name),
            extra=options.extra,
            description="PostgreSQL",
        )
        return (workload,)

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


service = Postgres()
