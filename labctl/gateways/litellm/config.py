"""LiteLLM's config.yaml as a value. Keys: docs/proxy/config_settings.md; checked against litellm 1.106.2's own types.

Six things the documentation does not say, read in the source of 1.106.2 and covered by tests:

- ``rpm`` and ``tpm`` count per deployment, and without ``enforce_model_rate_limits`` they are only weights of the
  shuffle (router_strategy/simple_shuffle.py): beside a sibling with a limit, a deployment without one is never picked.
- ``general_settings.global_max_parallel_requests`` is read by the legacy limiter alone (proxy/hooks/__init__.py); what
  works is admission control, per worker (proxy/middleware/admission_control_middleware.py).
- ``allowed_fails`` on the router takes away the protection of groups with one deployment
  (router_utils/cooldown_handlers.py): without ``cooldown_time: 0`` one dead moment makes the model unreachable.
- A request over the limit counts as a failure of the server, which is then put aside for the whole cooldown, well into
  the next minute (router.py ``async_routing_strategy_pre_call_checks``): ``allowed_fails_policy`` of the deployment
  takes its own limits out of the count.
- A retry after a 5xx may pick the dead server again, and again: only ``enable_weighted_failover`` tries every other
  server of the group (router.py ``_maybe_run_weighted_failover``; for the shuffle alone).
- Fallbacks are found by the name that the client wrote, alias or not; their targets may be groups only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from labctl.gateways import GatewayAsk, Linked
from labctl.gateways.litellm.groups import Groups, group, share
from labctl.gateways.litellm.options import CloudRoute, GroupLimits, LiteLLMBlock, PassThrough
from labctl.workload import ApiFlavour, Endpoint, Task

Values = dict[str, Any]

MASTER_KEY: Final = "LITELLM_MASTER_KEY"
SWAP_KEY: Final = "LABCTL_SWAP_KEY"
AUTH_MODULE: Final = "labctl_auth"
"""Checks the key when there is no database; LiteLLM looks for it beside config.yaml."""
MODES: Final[Mapping[Task, str]] = {
    Task.CHAT: "chat",
    Task.COMPLETE: "completion",
    Task.EMBED: "embedding",
    Task.RERANK: "rerank",
    Task.TRANSCRIBE: "audio_transcription",
    Task.SPEAK: "audio_speech",
    Task.IMAGE: "image_generation",
}
"""``model_info.mode``: which API a health check calls (litellm_core_utils/health_check_helpers.py)."""

_ENDLESS: Final = 1_000_000
_COSTLY: Final = frozenset({Task.IMAGE, Task.SPEAK, Task.TRANSCRIBE})
"""A check is a real request, and of these it is a whole picture or recording."""
_BY_TASK: Final = {Task.RERANK: "hosted_vllm", Task.SPEAK: "openai", Task.IMAGE: "openai"}
"""Tasks with one client that takes any ``api_base``: rerank_api/main.py, main.py ``speech``, images/main.py."""
_OTHERWISE: Final = {ApiFlavour.OPENAI: "openai", ApiFlavour.VLLM: "hosted_vllm", ApiFlavour.OLLAMA: "ollama"}
_CLIENTS: Final[Mapping[ApiFlavour, Mapping[Task, str]]] = {
    ApiFlavour.OPENAI: {Task.COMPLETE: "text-completion-openai"},
    ApiFlavour.VLLM: {},
    ApiFlavour.OLLAMA: {Task.CHAT: "ollama_chat"},
}
_NO_KEY: Final = "none"
"""The OpenAI client wants some key; the lab's own servers look at none."""


def build(ask: GatewayAsk) -> Values:
    """Return the whole configuration; secrets only as ``os.environ/NAME``."""
    options: LiteLLMBlock = ask.options
    groups = group(ask.endpoints, options.aliases)
    values: Values = {
        "model_list": [*_local_models(groups, options), *_cloud_models(options)],
        "litellm_settings": _litellm_settings(ask),
        "router_settings": _router_settings(groups, options),
        "general_settings": _general_settings(groups, options),
    }
    return merge(values, options.config)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """Merge mappings deeply; everything else in ``over`` replaces."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def environment_name(route: str, parameter: str) -> str:
    """Return the environment variable that carries a route's secret parameter."""
    spelt = "".join(c if c.isalnum() else "_" for c in route).upper()
    return f"ROUTE_{spelt}_{parameter.upper()}"


def _local_models(groups: Groups, options: LiteLLMBlock) -> Iterable[Values]:
    limits = {groups.main(name): limit for name, limit in options.limits.items()}
    taken: set[str] = set()
    for name, links in groups.members.items():
        own = limits.get(name)
        rpms = share(own.rpm, len(links)) if own and own.rpm else tuple(x.endpoint.rpm for x in links)
        tpms = share(own.tpm, len(links)) if own and own.tpm else tuple(x.endpoint.tpm for x in links)
        mixed = any(len({value is None for value in values}) > 1 for values in (rpms, tpms))
        alone = len(links) == 1 and name not in {groups.main(n) for n in options.fallbacks}
        for link, rpm, tpm in zip(links, rpms, tpms, strict=True):
            parallel = (own.parallel if own else None) or link.endpoint.parallel
            limited = {"rpm": rpm, "tpm": tpm, "max_parallel_requests": parallel, "weight": 1 if mixed else None}
            info = _model_info(_identity(name, link.endpoint, taken), link.endpoint, options, alone=alone)
            if rpm or tpm or parallel:
                info["allowed_fails_policy"] = {"RateLimitErrorAllowedFails": _ENDLESS}
            params = _given(_parameters(name, link, options) | limited)
            yield {"model_name": name, "litellm_params": params, "model_info": info}


def _identity(name: str, endpoint: Endpoint, taken: set[str]) -> str:
    """Name host and card where the label does; unique, and also a model name that reaches this one server."""
    identity = f"{name}@{endpoint.label or endpoint.workload}"
    identity = f"{name}@{endpoint.workload}" if identity in taken else identity
    taken.add(identity)
    return identity


def _parameters(name: str, link: Linked, options: LiteLLMBlock) -> Values:
    endpoint = replace(link.endpoint, flavour=ApiFlavour.OPENAI, backend_model=name) if link.by_name else link.endpoint
    prefix = _provider(endpoint)
    params: Values = {"model": f"{prefix}/{endpoint.backend_model}"}
    params["api_base"] = link.base_url if endpoint.flavour is ApiFlavour.OLLAMA else f"{link.base_url}/v1"
    if prefix in {"openai", "text-completion-openai"}:
        params["api_key"] = _NO_KEY
    if link.key:
        params["api_key"] = f"os.environ/{SWAP_KEY}"
    if endpoint.task is Task.EMBED:
        params["encoding_format"] = "float"
    params["timeout"] = endpoint.timeout
    if endpoint.timeout and options.stream_timeout:
        # The router's stream timeout would win over this server's longer one.
        params["stream_timeout"] = max(endpoint.timeout, options.stream_timeout)
    return params


def _provider(endpoint: Endpoint) -> str:
    """Return LiteLLM's name for the client of a server (docs/providers; types/utils.py LlmProviders)."""
    return _BY_TASK.get(endpoint.task) or _CLIENTS[endpoint.flavour].get(endpoint.task, _OTHERWISE[endpoint.flavour])


def _model_info(identity: str, endpoint: Endpoint, options: LiteLLMBlock, *, alone: bool) -> Values:
    return _given(
        {
            "id": identity,
            "mode": MODES[endpoint.task],
            "max_input_tokens": endpoint.context,
            "cooldown_time": 0 if alone else None,
            "disable_background_health_check": True if endpoint.on_demand or endpoint.task in _COSTLY else None,
            "health_check_timeout": options.health.timeout if options.health else None,
        }
    )


def _cloud_models(options: LiteLLMBlock) -> Iterable[Values]:
    for name, route in options.routes.items():
        secrets = route_secrets(name, route)
        params: Values = {"model": route.model} | {p: f"os.environ/{env}" for p, env in secrets.items()}
        params |= {"api_base": route.base, "api_version": route.version, **route.params}
        params |= {"rpm": route.rpm, "tpm": route.tpm, "timeout": route.timeout}
        # A check of a cloud model costs money: never in the background.
        info: Values = {"mode": MODES[Task(route.task)], "disable_background_health_check": True}
        info["id"] = f"{name}@{route.model.partition('/')[0]}"
        yield {"model_name": name, "litellm_params": _given(params), "model_info": info}


def route_secrets(name: str, route: CloudRoute) -> dict[str, str]:
    """Return parameter → environment variable of a route's secrets."""
    keys = (["api_key"] if route.key else []) + list(route.secrets)
    return {parameter: environment_name(name, parameter) for parameter in keys}


def traces(ask: GatewayAsk) -> str | None:
    """Return the URL of the lab's Phoenix, None when there is none that the gateway reaches."""
    found = (s for s in ask.services if s.kind == "phoenix" and "http" in s.addresses)
    phoenix = next(found, None)
    return phoenix.url() if phoenix else None


def _litellm_settings(ask: GatewayAsk) -> Values:
    options: LiteLLMBlock = ask.options
    own: list[str] = ["prometheus"] if any(client.metrics for client in ask.clients) else []
    own += ["arize_phoenix"] if traces(ask) else []
    callbacks = list(dict.fromkeys((*options.callbacks, *own)))
    return _given({"drop_params": options.drop_params, "callbacks": callbacks or None})


def _router_settings(groups: Groups, options: LiteLLMBlock) -> Values:
    return _given(
        {
            "routing_strategy": options.strategy,
            "num_retries": options.retries,
            "enable_weighted_failover": True if options.strategy == "simple-shuffle" else None,
            "allowed_fails": options.cooldown.after_fails,
            "cooldown_time": options.cooldown.for_,
            "timeout": options.timeout,
            "stream_timeout": options.stream_timeout,
            "enable_health_check_routing": True if options.health and options.health.routing else None,
            "optional_pre_call_checks": ["enforce_model_rate_limits"] if _limited(groups, options) else None,
            "model_group_alias": dict(groups.aliases) or None,
            "fallbacks": _fallbacks(options.fallbacks, groups),
            "context_window_fallbacks": _fallbacks(options.context_fallbacks, groups),
        }
    )


def _limited(groups: Groups, options: LiteLLMBlock) -> bool:
    endpoints = [link.endpoint for links in groups.members.values() for link in links]
    counted: tuple[Endpoint | GroupLimits | CloudRoute, ...]
    counted = (*endpoints, *options.limits.values(), *options.routes.values())
    return any(c.rpm or c.tpm for c in counted)


def _fallbacks(declared: Mapping[str, Sequence[str]], groups: Groups) -> list[Values] | None:
    """Fallbacks of every name of a group: the router looks them up by the name that the client wrote."""
    by_main = {groups.main(name): others for name, others in declared.items()}
    names = [*declared, *(name for name in (*by_main, *groups.aliases) if name not in declared)]
    wanted = {name: declared.get(name) or by_main.get(groups.main(name)) for name in names}
    return [{name: [groups.main(o) for o in others]} for name, others in wanted.items() if others] or None


def _general_settings(groups: Groups, options: LiteLLMBlock) -> Values:
    return _given(
        {
            "master_key": f"os.environ/{MASTER_KEY}",
            "database_url": "os.environ/DATABASE_URL" if options.keys.database else None,
            "custom_auth": None if options.keys.database else f"{AUTH_MODULE}.check",
            "pass_through_endpoints": [_pass_through(p, groups, options) for p in options.pass_through] or None,
            # /health calls every model: it must not wake the ones that are switched off.
            "health_check_skip_disabled_background_models": True,
            **_background_checks(options),
            **_admission(options),
        }
    )


def _background_checks(options: LiteLLMBlock) -> Values:
    if options.health is None:
        return {"background_health_checks": False}
    return {
        "background_health_checks": True,
        "health_check_interval": options.health.every,
        "health_check_concurrency": options.health.concurrency,
    }


def _admission(options: LiteLLMBlock) -> Values:
    if options.parallel is None:
        return {}
    processes = options.workers * options.replicas
    return {
        "max_in_flight_requests_per_worker": max(1, options.parallel // processes),
        "max_queued_requests_per_worker": options.queue // processes,
        "admission_queue_timeout_seconds": options.timeout,
    }


def _pass_through(entry: PassThrough, groups: Groups, options: LiteLLMBlock) -> Values:
    links = groups.members[groups.main(entry.to)]
    return {
        "path": entry.path,
        "target": f"{links[0].base_url}{entry.target}",
        "methods": list(entry.methods),
        "timeout": entry.timeout or links[0].endpoint.timeout or options.timeout,
        "include_subpath": entry.subpaths,
        "auth": entry.auth,
    }


def _given(values: Mapping[str, Any]) -> Values:
    return {key: value for key, value in values.items() if value is not None}
