"""From the lab to the file that the gateway reads (``labctl.swap.config`` says what is in it)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from labctl.emit import Value
from labctl.gateways import GatewayAsk, Linked, Resident
from labctl.gateways.builtin.options import BuiltinBlock
from labctl.workload import Control, EnvValue, SecretRef, SecretText, Task

FORMAT: Final = 1
TIMEOUT: Final = 600
"""Seconds that a server may be silent where lab.yaml does not say."""
MASTER: Final = "LABCTL_KEY_MASTER"


def build(ask: GatewayAsk) -> Value:
    """Return the file's value. Names, ports and sizes only; keys are named by their variables."""
    options: BuiltinBlock = ask.options
    return {
        "format": FORMAT,
        "cards": {name: card.budget for name, card in ask.cards.items()},
        "labels": {name: card.label for name, card in ask.cards.items()},
        "queue": options.queue.requests,
        "patience": options.queue.patience,
        "min_residency": options.residency,
        "body_limit": options.body,
        "origins": list(options.origins),
        "log_prompts": options.show_prompts,
        "otlp": options.otlp or "",
        "keys": _keys(ask),
        "backends": [_backend(ask, name, found) for name, found in _by_server(ask.endpoints).items()],
    }


def environment(ask: GatewayAsk) -> dict[str, EnvValue]:
    """Return the variables that hold the keys. Where nobody is asked for one, services need none."""
    options: BuiltinBlock = ask.options
    named = {MASTER: options.keys.master} if options.keys.master else {}
    named |= {_variable(name): user.key for name, user in options.keys.users.items()}
    if options.keys.any:
        named |= {_variable(client.name): client.secret for client in ask.clients}
    return {variable: SecretText((SecretRef(secret),)) for variable, secret in named.items()}


def _keys(ask: GatewayAsk) -> Value:
    options: BuiltinBlock = ask.options
    master: list[Value] = [{"name": "master", "env": MASTER, "admin": True}] if options.keys.master else []
    users: list[Value] = [
        {
            "name": name,
            "env": _variable(name),
            "models": list(user.models),
            "parallel": user.parallel,
            "per_minute": user.per_minute,
        }
        for name, user in sorted(options.keys.users.items())
    ]
    clients: list[Value] = [
        {"name": c.name, "env": _variable(c.name), "only": "metrics" if c.metrics else "models"} for c in ask.clients
    ]
    return [*master, *users, *clients] if options.keys.any else []


def _variable(name: str) -> str:
    return f"LABCTL_KEY_{name.upper().replace('-', '_')}"


def _by_server(endpoints: Iterable[Linked]) -> Mapping[str, list[Linked]]:
    found: dict[str, list[Linked]] = {}
    for linked in endpoints:
        found.setdefault(linked.endpoint.workload, []).append(linked)
    return found


def _backend(ask: GatewayAsk, name: str, found: list[Linked]) -> Value:
    options: BuiltinBlock = ask.options
    first, resident = found[0].endpoint, ask.residents[name]
    names = dict.fromkeys(public for linked in found for public in linked.endpoint.serves)
    timeout = first.timeout or options.timeout or TIMEOUT
    return {
        "name": name,
        "url": found[0].base_url,
        "serves": list(names),
        "model": _own_name(found),
        "health": resident.health,
        "memory": dict(resident.memory),
        "slots": min(n for n in (first.parallel, first.slots or 1) if n),
        "startup": resident.startup,
        "timeout": timeout,
        "pinned": resident.deployment in options.pin,
        "preload": resident.deployment in options.preload or resident.always,
        "ttl": None if resident.always else options.idle,
        "exclusive": [resident.exclusive] if resident.exclusive else [],
        "task": first.task.value,
        "vision": first.task is Task.CHAT and resident.vision,
        "driver": _driver(resident),
    }


def _own_name(found: list[Linked]) -> str:
    """Return the name that a server checks, "" where it takes any or calls its models as people do."""
    own = {linked.endpoint.backend_model for linked in found}
    public = {name for linked in found for name in linked.endpoint.serves}
    return next(iter(own)) if len(own) == 1 and not own & public else ""


def _driver(resident: Resident) -> Value:
    control = resident.control or Control("none", "")
    return {"kind": control.kind, "id": control.id, "at": control.at}
