"""llama-swap's config.yaml as a value. Keys: config.example.yaml and internal/config of mostlygeek/llama-swap, v250.

Four things that its documentation does not say, read in its source and covered by tests:

- ``healthCheckTimeout`` of a model is overwritten by the file's: the longest start-up counts for all (config/load.go).
- A 11th request of a model is answered 429, waiting ones among them, where no ``concurrencyLimit`` is given
  (router/scheduler/fifo.go).
- ``captureBuffer`` keeps the last requests and answers in memory, 5 MB of them, where it is not 0 (config/load.go).
- The published schema wants ``vars``, of 1 to 8 letters and digits; the program does without (config-schema.json).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from labctl.emit import shell
from labctl.gateways import GatewayAsk, Linked
from labctl.gateways.combinations import Combination, Kind, clusters, largest, room_beside
from labctl.gateways.llama_swap.names import Names, names_of
from labctl.gateways.llama_swap.options import LlamaSwapBlock
from labctl.gateways.parent import child_of, command, servers_of
from labctl.workload import EnvValue, SecretRef, SecretText, Task

Values = dict[str, Any]

MASTER: Final = "LABCTL_KEY_MASTER"
PYTHON: Final = "${env.LABCTL_PYTHON}"
"""The Python that has labctl, as supervisord's programs are told it."""
_SHORTEST: Final = 15
"""Seconds of ``healthCheckTimeout`` that llama-swap insists on."""
_CAPABILITIES: Final[Mapping[Task, Values]] = {
    Task.CHAT: {"in": ["text"], "out": ["text"]},
    Task.COMPLETE: {"in": ["text"], "out": ["text"]},
    Task.RERANK: {"in": ["text"], "reranker": True},
}


def build(ask: GatewayAsk) -> Values:
    """Return the whole configuration; keys are named by their variables."""
    options: LlamaSwapBlock = ask.options
    names, children = names_of(ask), ask.children
    values: Values = {
        "healthCheckTimeout": max([_SHORTEST, *(ask.residents[name].startup for name in children.servers)]),
        "includeAliasesInList": True,
        "captureBuffer": 0,
        "sendLoadingState": options.loading or None,
        "globalTTL": options.idle or 0,
        "apiKeys": [f"${{env.{name}}}" for name in environment(ask)] or None,
        "models": {
            names.models[x.endpoint.workload]: _model(ask, x, names)
            for x in ask.endpoints
            if x.endpoint.workload in children.servers
        },
        "peers": _peers(ask) or None,
        "selectors": _selectors(ask, names) or None,
        "routing": _routing(ask, names) if children.servers else None,
    }
    loaded = [n for n in children.servers if ask.residents[n].deployment in {*options.pin, *options.preload}]
    if loaded:
        values["hooks"] = {"on_startup": {"preload": [names.models[name] for name in loaded]}}
    return _given(values)


def environment(ask: GatewayAsk) -> dict[str, EnvValue]:
    """Return the variables that hold the keys. Where nobody is asked for one, services need none."""
    keys = ask.options.keys
    named = {MASTER: keys.master} if keys.master else {}
    named |= {_variable(name): secret for name, secret in keys.users.items()}
    if named:
        named |= {_variable(client.name): client.secret for client in ask.clients}
    return {variable: SecretText((SecretRef(secret),)) for variable, secret in named.items()}


def pinned(ask: GatewayAsk) -> frozenset[str]:
    """Return the children that are never unloaded."""
    return frozenset(n for n in ask.children.servers if ask.residents[n].deployment in ask.options.pin)


def combinations(ask: GatewayAsk) -> list[list[Combination]]:
    """Return the largest combinations of each cluster. TooManyError where they are too many for a file."""
    stay = pinned(ask)
    room = room_beside(ask.children, stay)
    return [largest(kinds, room) for kinds in clusters(ask.children, stay)]


def _variable(name: str) -> str:
    return f"LABCTL_KEY_{name.upper().replace('-', '_')}"


def _model(ask: GatewayAsk, linked: Linked, names: Names) -> Values:
    endpoint, options = linked.endpoint, ask.options
    server = ask.children.servers[endpoint.workload]
    silence = endpoint.timeout or options.timeout
    return _given(
        {
            "cmd": shell.words(PYTHON if word == "{python}" else word for word in command(ask, server)),
            "proxy": f"http://127.0.0.1:{child_of(server).port}",
            "checkEndpoint": ask.residents[server.name].health,
            "env": [f"{name}={value}" for name, value in sorted(server.env.items())] or None,
            "aliases": list(names.aliases[server.name]) or None,
            "description": server.description or None,
            "unlisted": True if names.models[server.name] not in endpoint.serves else None,
            "ttl": 0 if server.name in pinned(ask) else None,
            "concurrencyLimit": endpoint.parallel or options.requests,
            "timeouts": {"responseHeader": silence} if silence else None,
            "capabilities": _capabilities(ask, linked),
        }
    )


def _capabilities(ask: GatewayAsk, linked: Linked) -> Values | None:
    found = _CAPABILITIES.get(linked.endpoint.task)
    if found is None:
        return None
    seen = ["text", "image"] if ask.residents[linked.endpoint.workload].vision else list(found["in"])
    context = {"context": linked.endpoint.context} if linked.endpoint.context else {}
    return {**found, "in": seen, **context}


def _peers(ask: GatewayAsk) -> Values:
    """Return the servers that are not its children: they run whatever llama-swap does, and are passed on to."""
    found: Values = {}
    for linked in ask.endpoints:
        endpoint = linked.endpoint
        if endpoint.workload not in ask.children.servers:
            peer = found.setdefault(endpoint.workload, {"proxy": linked.base_url, "models": []})
            peer["models"] += [name for name in endpoint.serves if name not in peer["models"]]
            silence = endpoint.timeout or ask.options.timeout
            if silence:
                peer["timeouts"] = {"responseHeader": silence}
    return found


def _selectors(ask: GatewayAsk, names: Names) -> Values:
    """Return the names that several serve. One peer's name is listed only under a selector."""
    slots = {x.endpoint.workload: x.endpoint.slots or 1 for x in ask.endpoints}
    found: Values = {}
    for public, targets in names.shared.items():
        servers = servers_of(ask)[public]
        strategy = "pin" if len(targets) == 1 else "spillover" if together(ask, servers) else "warm"
        settings = {"settings": {"spillover": min(slots[s] for s in servers)}} if strategy == "spillover" else {}
        found[public] = {"strategy": strategy, "targets": list(targets), **settings}
    return found


def together(ask: GatewayAsk, servers: Iterable[str]) -> bool:
    """Whether they may all be loaded at a time: llama-swap refuses to spread requests over others."""
    wanted = frozenset(servers) & frozenset(ask.children.servers)
    return all(any(_holds(c, wanted & _members(found)) for c in found) for found in combinations(ask))


def _members(found: Iterable[Combination]) -> frozenset[str]:
    return frozenset(name for c in found for kind, _ in c.counts for name in kind.members)


def _holds(combination: Combination, wanted: frozenset[str]) -> bool:
    held = {name: i for i, (kind, _) in enumerate(combination.counts) for name in kind.members}
    counts = [n for _, n in combination.counts]
    for name in wanted:
        if name not in held:
            return False
        counts[held[name]] -= 1
    return all(n >= 0 for n in counts)


def _routing(ask: GatewayAsk, names: Names) -> Values:
    """Return the matrix: every set that fits the budgets is part of one, and no other is."""
    spelt = {server: f"m{i}" for i, server in enumerate(sorted(ask.children.servers), 1)}
    stay = [spelt[name] for name in sorted(pinned(ask))]
    sets: Values = {}
    for i, found in enumerate(combinations(ask), 1):
        some = [text for c in found if (text := " & ".join(w for k, n in c.counts for w in _words(k, n, spelt)))]
        if some:
            sets[f"s{i}"] = (
                some[0] if len(some) == 1 else " | ".join(f"({text})" if "&" in text else text for text in some)
            )
    everything = " & ".join([*stay, *(f"+{name}" for name in sets)])
    matrix: Values = {
        "vars": {short: names.models[server] for server, short in spelt.items()},
        # What a start costs, in seconds: of models that could go, the one that is back soonest goes.
        "evict_costs": {short: max(1, ask.residents[server].startup) for server, short in spelt.items()},
        "sets": {**sets, "fits": everything} if stay or len(sets) != 1 else sets,
    }
    return {"router": {"use": "matrix", "settings": {"matrix": matrix}}}


def _words(kind: Kind, number: int, spelt: Mapping[str, str]) -> list[str]:
    """Return the conditions that ``number`` of a kind are loaded: so many choices, each of any of them."""
    members = [spelt[name] for name in kind.members]
    return members if number == len(members) else [f"({' | '.join(members)})"] * number


def _given(values: Mapping[str, Any]) -> Values:
    return {key: value for key, value in values.items() if value is not None}
