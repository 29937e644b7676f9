"""The ``gateway`` block of lab.yaml when its engine is the built-in one."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from labctl.model.base import Block, Duration, Name, Positive, PublicName, SecretName, Size
from labctl.model.gateway import GatewayBlock


class Queue(Block):
    """Requests that wait."""

    requests: Annotated[Positive, Field(description="how many may wait; one more is answered 503")] = 50
    patience: Annotated[
        Duration, Field(description="how long a request may be overtaken by younger ones for loaded models")
    ] = 20


class User(Block):
    """Somebody with a key of his own."""

    key: Annotated[SecretName, Field(description="secret that holds the key")]
    models: Annotated[tuple[PublicName, ...], Field(description="public names that it may use; default: all")] = ()
    parallel: Annotated[Positive | None, Field(description="requests at a time")] = None
    per_minute: Annotated[Positive | None, Field(description="requests within any minute")] = None


class BuiltinKeys(Block):
    """Who may ask."""

    master: Annotated[SecretName | None, Field(description="secret that holds the key that may do everything")] = None
    users: Annotated[dict[Name, User], Field(description="others, by name")] = {}
    file: Annotated[
        str | None,
        Field(
            description="file on the host with more keys, read again when it changes: a JSON list of objects with "
            "`name`, `sha256` of the key, and at will `models`, `parallel`, `per_minute`",
            pattern=r"^/([A-Za-z0-9._-]+/)+[A-Za-z0-9._-]+$",
        ),
    ] = None

    @property
    def any(self) -> bool:
        """Whether anybody is asked for a key."""
        return bool(self.master or self.users or self.file)


class BuiltinBlock(GatewayBlock):
    """labctl's own gateway: keeps loaded what fits on the cards, and swaps the rest."""

    swaps: ClassVar[bool] = True

    port: Annotated[int, Field(description="host port of the endpoint and the dashboard", ge=1, le=65535)] = 8888
    timeout: Annotated[Duration | None, Field(description="longest a server may be silent")] = None
    queue: Queue = Queue()
    keys: BuiltinKeys = BuiltinKeys()
    pin: Annotated[tuple[Name, ...], Field(description="deployments that are loaded at the start and stay")] = ()
    preload: Annotated[tuple[Name, ...], Field(description="deployments that are loaded at the start")] = ()
    idle: Annotated[Duration | None, Field(description="unload on-demand models that nobody asked for so long")] = None
    residency: Annotated[Duration, Field(description="shortest time that a model stays loaded")] = 0
    body: Annotated[Size, Field(description="largest request")] = 64 << 20
    origins: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$")], ...],
        Field(description="web pages that may ask from a browser, as `https://chat.example`; `*` for all"),
    ] = ()
    otlp: Annotated[
        str | None,
        Field(
            description="collector that gets a trace of each request, by OTLP over HTTP, as `http://phoenix:6006`",
            pattern=r"^https?://[^/\s]+(/\S*)?$",
        ),
    ] = None
    python: Annotated[
        str,
        Field(description="Python of the host that runs it where it is a unit: 3.11 or newer", pattern=r"^/[^\s%$]+$"),
    ] = "/usr/bin/python3"
    show_prompts: Annotated[bool, Field(description="show how requests begin in the dashboard's list")] = False
