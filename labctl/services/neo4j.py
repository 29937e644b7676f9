"""Neo4j: a graph database, and a task that gives it its schema: constraints, indexes, vector indexes.

Variables: neo4j.com/docs/operations-manual/current/docker (``NEO4J_`` and the setting, with ``_`` for its dots).
Cypher: neo4j.com/docs/cypher-manual/current/indexes. Every statement says ``IF NOT EXISTS``: it may run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.model.base import Block, Positive, SecretName, Size
from labctl.model.fields import OneOrMany
from labctl.quantity import GIB, MIB
from labctl.services import ServiceAsk
from labctl.services.common import Plain, Stored, container, data, secret
from labctl.workload import ConfigFile, Container, EnvValue, Health, SecretRef, SecretText, Start, Workload

HTTP: Final = 7474
BOLT: Final = 7687
_SCHEMA: Final = "/schema/schema.cypher"
_WAIT_AND_APPLY: Final = f"""\
until cypher-shell --format plain 'RETURN 1' >/dev/null 2>&1; do sleep 2; done
exec cypher-shell --format plain --fail-fast --file {_SCHEMA}
"""
"""cypher-shell reads NEO4J_ADDRESS, NEO4J_USERNAME and NEO4J_PASSWORD."""

Word = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
"""A label, relationship type or property that needs no quoting."""


class Keyed(Block):
    """Properties of a label."""

    label: Word
    properties: Annotated[OneOrMany[Word], Field(min_length=1, description="one or more properties")]


class VectorIndex(Block):
    """An index for nearest neighbours."""

    label: Word
    property: Annotated[Word, Field(description="property that holds the vector")] = "embedding"
    dimensions: Annotated[Positive, Field(description="length of the vectors", le=4096)]
    similarity: Annotated[Literal["cosine", "euclidean"], Field(description="what counts as near")] = "cosine"


class Schema(Block):
    """What the database is to have before anybody uses it."""

    unique: Annotated[tuple[Keyed, ...], Field(description="properties that identify a node")] = ()
    indexes: Annotated[tuple[Keyed, ...], Field(description="properties that are looked up")] = ()
    full_text: Annotated[tuple[Keyed, ...], Field(description="properties whose words are searched")] = ()
    vectors: Annotated[tuple[VectorIndex, ...], Field(description="vector indexes")] = ()


class Neo4jBlock(Stored):
    """A graph database."""

    password: Annotated[
        SecretName, Field(description="secret that holds the password of `neo4j`: 8 characters or more, set once")
    ] = "NEO4J_PASSWORD"  # noqa: S105 - a name
    heap: Annotated[Size, Field(description="memory of the Java heap")] = GIB
    page_cache: Annotated[Size, Field(description="memory for the store's pages")] = 512 * MIB
    plugins: Annotated[tuple[Word, ...], Field(description="plugins to load, e.g. `apoc`: fetched at each start")] = ()
    labels: Annotated[Schema, Field(alias="schema", description="constraints and indexes, applied as a task")] = (
        Schema()
    )


class Neo4j(Plain):
    """The service."""

    name = "neo4j"
    options = Neo4jBlock
    open = True
    ports = MappingProxyType({"http": HTTP, "bolt": BOLT})

    def check(self, name: str, options: Neo4jBlock) -> Iterable[Diagnostic]:
        """Return the problems of its places and of its memory."""
        yield from super().check(name, options)
        needed = options.heap + options.page_cache + 256 * MIB
        if options.memory_limit is not None and options.memory_limit < needed:
            yield Diagnostic(
                code="LAB150",
                summary=f"`{name}` may take less memory than its heap and page cache together",
                path=("services", name, "memory_limit"),
                hint=f"raise it to {needed // MIB} MiB or more, or lower `heap` and `page_cache`",
            )

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the server and, when lab.yaml has a schema, the task that applies it."""
        options: Neo4jBlock = ask.options
        server = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(container(ask, data(ask, "/data")),),
            product="neo4j",
            env={**_environment(options), **options.extra_env},
            ports=tuple(ask.ports.values()),
            health=Health(path="/", start_period=180),
            memory_limit=options.memory_limit or options.heap + options.page_cache + GIB,
            origin=ask.origin,
            extra=options.extra,
            description="Neo4j",
        )
        text = "".join(f"{statement};\n" for statement in statements(options.labels))
        return (server, *((_task(ask, server, text),) if text else ()))


def statements(schema: Schema) -> Iterator[str]:
    """Yield the Cypher of a schema; names are made of what they are about, so that a second run finds them."""
    for key in schema.unique:
        fields = ", ".join(f"n.{p}" for p in key.properties)
        name = _name(key.label, key.properties, "unique")
        yield f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{key.label}) REQUIRE ({fields}) IS UNIQUE"
    for key in schema.indexes:
        fields = ", ".join(f"n.{p}" for p in key.properties)
        name = _name(key.label, key.properties, "index")
        yield f"CREATE INDEX {name} IF NOT EXISTS FOR (n:{key.label}) ON ({fields})"
    for key in schema.full_text:
        fields = ", ".join(f"n.{p}" for p in key.properties)
        name = _name(key.label, key.properties, "text")
        yield f"CREATE FULLTEXT INDEX {name} IF NOT EXISTS FOR (n:{key.label}) ON EACH [{fields}]"
    for vector in schema.vectors:
        name = _name(vector.label, (vector.property,), "vector")
        config = f"`vector.dimensions`: {vector.dimensions}, `vector.similarity_function`: '{vector.similarity}'"
        where = f"FOR (n:{vector.label}) ON n.{vector.property}"
        yield f"CREATE VECTOR INDEX {name} IF NOT EXISTS {where} OPTIONS {{indexConfig: {{{config}}}}}"


def _name(label: str, properties: Iterable[str], kind: str) -> str:
    return "_".join((label, *properties, kind)).lower()


def _environment(options: Neo4jBlock) -> dict[str, EnvValue]:
    env: dict[str, EnvValue] = {
        "NEO4J_AUTH": SecretText(("neo4j/", SecretRef(options.password))),
        "NEO4J_server_memory_heap_initial__size": f"{options.heap // MIB}m",
        "NEO4J_server_memory_heap_max__size": f"{options.heap // MIB}m",
        "NEO4J_server_memory_pagecache_size": f"{options.page_cache // MIB}m",
        "NEO4J_dbms_usage__report_enabled": "false",
    }
    plugins = ", ".join(f'"{name}"' for name in options.plugins)
    return env | ({"NEO4J_PLUGINS": f"[{plugins}]"} if plugins else {})


def _task(ask: ServiceAsk, server: Workload, schema: str) -> Workload:
    form = Container(
        image=ask.options.image or ask.image,
        entrypoint=("/bin/sh",),
        args=("-euc", _WAIT_AND_APPLY),
        probe=ask.probe,
    )
    return Workload(
        name=f"{ask.name}-schema",
        host=ask.host.name,
        forms=(form,),
        env={
            "NEO4J_ADDRESS": f"bolt://{server.name}:{BOLT}",
            "NEO4J_USERNAME": "neo4j",
            "NEO4J_PASSWORD": secret(ask.options.password),
        },
        files=(ConfigFile(name="schema.cypher", content=schema, target=_SCHEMA),),
        after=(server.name,),
        start=Start.ONCE,
        serves_to=(),
        origin=ask.origin,
        description="schema of Neo4j",
    )


service = Neo4j()
