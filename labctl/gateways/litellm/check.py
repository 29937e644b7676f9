"""What the schema of the gateway's block cannot see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from labctl.diagnostics import At, Diagnostic, DocPath, Related, Severity
from labctl.gateways.litellm.groups import resolve, served
from labctl.gateways.litellm.known_keys import SECTIONS, section_of
from labctl.gateways.litellm.options import LiteLLMBlock
from labctl.model.unknown import nearest, unknown_name
from labctl.workload import Endpoint

GATEWAY: Final[DocPath] = ("gateway",)

KEYLESS: Final = frozenset({"bedrock", "vertex_ai", "sagemaker", "ollama", "ollama_chat", "hosted_vllm", "lm_studio"})
"""Providers that are reached without one API key: by a cloud identity, or because they are somebody's own server."""


def problems(options: LiteLLMBlock, endpoints: Sequence[Endpoint], databases: Collection[str]) -> Iterator[Diagnostic]:
    """Yield every problem of the block, with document paths."""
    names = served(endpoints)
    public = {*names, *options.routes}
    rules: tuple[Callable[[], Iterable[Diagnostic]], ...] = (
        lambda: _names_taken_twice(options, names),
        lambda: _mixed_tasks(names),
        lambda: _unknown_names(options, public),
        lambda: _circles(options),
        lambda: _routes(options),
        lambda: _database(options, databases),
        lambda: _replicas(options, endpoints),
        lambda: _misplaced(options.config),
    )
    for rule in rules:
        yield from rule()


def _names_taken_twice(options: LiteLLMBlock, names: Mapping[str, Sequence[Endpoint]]) -> Iterator[Diagnostic]:
    for key, block in (("aliases", options.aliases), ("routes", options.routes)):
        for name in block:
            first = names[name][0].origin if name in names else ("gateway", "routes", name)
            if name in names or (key == "aliases" and name in options.routes):
                yield Diagnostic(
                    code="LAB130",
                    summary=f"the public name `{name}` is taken",
                    path=(*GATEWAY, key, name),
                    at=At.KEY,
                    hint="choose another name, or remove it from one of the two",
                    related=(Related("it is served here", first),),
                )


def _mixed_tasks(names: Mapping[str, Sequence[Endpoint]]) -> Iterator[Diagnostic]:
    for name, endpoints in names.items():
        first = endpoints[0]
        other = next((e for e in endpoints if e.task is not first.task), None)
        if other:
            yield Diagnostic(
                code="LAB131",
                summary=f"`{name}` is served for `{other.task}` here and for `{first.task}` elsewhere",
                path=other.origin,
                hint="requests of one name go to any of its servers: give the two tasks two names in `serves`",
                related=(Related(f"served for `{first.task}` here", first.origin),),
            )


def _unknown_names(options: LiteLLMBlock, public: Collection[str]) -> Iterator[Diagnostic]:
    known = {*public, *options.aliases}
    for path, name, at in _references(options):
        if name not in known:
            yield unknown_name("LAB132", "public name", name, known, path, key=at is At.KEY)


def _references(options: LiteLLMBlock) -> Iterator[tuple[DocPath, str, At]]:
    """Every place of the block where a public name must be one that somebody serves."""
    for alias, target in options.aliases.items():
        yield (*GATEWAY, "aliases", alias), target, At.VALUE
    for name in options.limits:
        yield (*GATEWAY, "limits", name), name, At.KEY
    for key, block in (("fallbacks", options.fallbacks), ("context_fallbacks", options.context_fallbacks)):
        for name, others in block.items():
            yield (*GATEWAY, key, name), name, At.KEY
            for index, other in enumerate(others):
                yield (*GATEWAY, key, name, index), other, At.VALUE
    for index, entry in enumerate(options.pass_through):
        yield (*GATEWAY, "pass_through", index, "to"), entry.to, At.VALUE


def _circles(options: LiteLLMBlock) -> Iterator[Diagnostic]:
    said: set[str] = set()
    for alias in options.aliases:
        trail = _followed(alias, options.aliases)
        if alias in trail and alias not in said:
            said.update(trail)
            yield Diagnostic(
                code="LAB133",
                summary=f"the alias `{alias}` leads back to itself",
                path=(*GATEWAY, "aliases", alias),
                detail=" → ".join((alias, *trail)),
                hint="let it name a model that a deployment or route serves",
            )
    for key, block in (("fallbacks", options.fallbacks), ("context_fallbacks", options.context_fallbacks)):
        for name, others in block.items():
            own = resolve(name, options.aliases)
            for index, other in enumerate(others):
                if resolve(other, options.aliases) == own:
                    yield Diagnostic(
                        code="LAB133",
                        summary=f"`{name}` falls back to itself",
                        path=(*GATEWAY, key, name, index),
                        hint="name another model",
                    )


def _followed(alias: str, aliases: Mapping[str, str]) -> list[str]:
    """Return the names that an alias leads to, one after another, until one comes again or is no alias."""
    trail: list[str] = []
    while alias in aliases and aliases[alias] not in trail:
        alias = aliases[alias]
        trail.append(alias)
    return trail


def _routes(options: LiteLLMBlock) -> Iterator[Diagnostic]:
    for name, route in options.routes.items():
        provider = route.model.partition("/")[0]
        if route.key is None and provider not in KEYLESS and not route.secrets:
            yield Diagnostic(
                code="LAB135",
                summary=f"the route `{name}` has no key for `{provider}`",
                path=(*GATEWAY, "routes", name),
                at=At.KEY,
                hint=f"add `key: {provider.upper()}_API_KEY`, the name of the secret",
            )


def _database(options: LiteLLMBlock, databases: Collection[str]) -> Iterator[Diagnostic]:
    name = options.keys.database
    if name is not None and name not in databases:
        path = (*GATEWAY, "keys", "database")
        problem = unknown_name("LAB136", "database service", name, databases, path)
        yield problem if databases else _no_database(name, path)


def _no_database(name: str, path: DocPath) -> Diagnostic:
    return Diagnostic(
        code="LAB136",
        summary=f"no service `{name}` keeps the gateway's keys",
        path=path,
        hint=f"add `{name}: {{host: …}}` with `kind: postgres` under `services`, or write `database: none`",
    )


def _replicas(options: LiteLLMBlock, endpoints: Sequence[Endpoint]) -> Iterator[Diagnostic]:
    """Proxies know of each other's requests only through Redis (docs/proxy/load_balancing.md)."""
    limits = (
        *((e.rpm, e.tpm) for e in endpoints),
        *((limit.rpm, limit.tpm) for limit in options.limits.values()),
        *((route.rpm, route.tpm) for route in options.routes.values()),
    )
    limited = any(rpm or tpm for rpm, tpm in limits)
    shared = "redis_host" in options.config.get("router_settings", {})
    if options.replicas > 1 and limited and not shared:
        yield Diagnostic(
            code="LAB153",
            severity=Severity.WARNING,
            summary=f"each of {options.replicas} proxies counts its own requests: limits are that many times higher",
            path=(*GATEWAY, "replicas"),
            hint="give them a Redis: `config: {router_settings: {redis_host: …, redis_port: 6379}}`",
        )


def _misplaced(config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """LiteLLM ignores a key in the wrong section without a word."""
    for section, block in config.items():
        path: DocPath = (*GATEWAY, "config", section)
        if section not in SECTIONS:
            yield _ignored(
                f"LiteLLM's config.yaml has no section `{section}`", path, section_of(section), SECTIONS, section
            )
        known = SECTIONS.get(section)
        if known and isinstance(block, Mapping):
            for key in block:
                if key not in known:
                    text = f"LiteLLM has no `{key}` in `{section}` and would ignore it"
                    yield _ignored(text, (*path, key), section_of(key), known, key)


def _ignored(summary: str, path: DocPath, home: str | None, known: Iterable[str], key: str) -> Diagnostic:
    near = nearest(key, known)
    hint = f"it belongs under `{home}`" if home else f"did you mean `{near}`?" if near else "remove it"
    return Diagnostic(code="LAB137", summary=summary, path=path, at=At.KEY, hint=hint)
