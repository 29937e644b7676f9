"""What llama-swap calls the lab's servers: models of its own, peers, and selectors for names that several serve."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.gateways import GatewayAsk
from labctl.gateways.parent import servers_of
from labctl.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Every public name, once.

    Attributes:
        models: child → the id of its model; aliases: child → further names that it alone serves.
        shared: public name → what llama-swap calls those that serve it; also each name that one peer serves.
    """

    models: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]]
    shared: Mapping[str, tuple[str, ...]]


def names_of(ask: GatewayAsk) -> Names:
    """Return the names. A model is called as people call it; only where several serve that name, as labctl does."""
    behind = servers_of(ask)
    models: dict[str, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    for linked in ask.endpoints:
        server = linked.endpoint.workload
        if server in ask.children.servers:
            own = [name for name in linked.endpoint.serves if len(behind[name]) == 1]
            models[server] = own[0] if own else f"{linked.endpoint.serves[0]}@{server}"
            aliases[server] = tuple(own[1:])
    shared = {
        public: tuple(models.get(server) or f"{server}/{public}" for server in servers)
        for public, servers in behind.items()
        if len(servers) > 1 or servers[0] not in models
    }
    return Names(models=models, aliases=aliases, shared=shared)
