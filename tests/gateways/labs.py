"""Asks for tests: endpoints and hosts as resolve would hand them to a gateway."""

from __future__ import annotations

from typing import Any

from labctl.gateways import GatewayAsk, Linked
from labctl.gateways.litellm.options import LiteLLMBlock
from labctl.model.lab import frozen
from labctl.placed import DatabaseLink, PlacedHost, Places
from labctl.workload import ApiFlavour, Endpoint, Probe, SecretRef, Task

HOST = PlacedHost(
    name="prod",
    lab="demo",
    address="192.168.0.152",
    bind="0.0.0.0",  # noqa: S104 - a LAN host's address in a rendered file
    target="compose",
    places=Places(root="/", config="opt/labctl/demo", state="var/lib/labctl/demo", models="/srv/models"),
)
DATABASE = DatabaseLink(
    service="postgres",
    workload="postgres",
    host="postgres",
    port=5432,
    name="litellm",
    user="litellm",
    password=SecretRef("POSTGRES_PASSWORD"),
)


def endpoint(name: str, *serves: str, **facts: Any) -> Endpoint:
    values = {"host": "ash", "flavour": ApiFlavour.OPENAI, "task": Task.CHAT, "label": name, **facts}
    values.setdefault("backend_model", serves[0])
    return Endpoint(workload=name, serves=serves, origin=("deployments", name), **values)


def linked(*endpoints: Endpoint) -> tuple[Linked, ...]:
    return tuple(Linked(e, f"http://{e.host}:{8080 + i}") for i, e in enumerate(endpoints))


def block(**keys: Any) -> LiteLLMBlock:
    return LiteLLMBlock.model_validate(frozen({"engine": "litellm", "host": "prod", **keys}))


def ask(*endpoints: Endpoint, database: DatabaseLink | None = None, **keys: Any) -> GatewayAsk:
    return GatewayAsk(
        lab="demo",
        host=HOST,
        options=block(**keys),
        endpoints=linked(*endpoints),
        database=database,
        port=4000,
        bind="127.0.0.1",
        image="ghcr.io/berriai/litellm:v1.106.2",
        probe=Probe.PYTHON,
    )
