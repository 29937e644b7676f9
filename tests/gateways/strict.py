"""A strict reading of LiteLLM's config.yaml: LiteLLM itself ignores what it does not know, this says so.

Checked against the types and signatures of the installed LiteLLM, never against lists of our own.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import litellm
import yaml
from litellm.litellm_core_utils.health_check_helpers import HealthCheckHelpers
from litellm.proxy._types import ConfigGeneralSettings, ConfigYAML, PassThroughGenericEndpoint
from litellm.router import Router
from litellm.types.router import Deployment, LiteLLM_Params, UpdateRouterConfig

SECTIONS = {"model_list", "litellm_settings", "router_settings", "general_settings"}
"""The sections that labctl writes; anything else is a mistake of labctl's."""
PASSED_ON = {"encoding_format", "weight", "max_parallel_requests"}
"""Beside the declared parameters: the first goes to the server, the others are read by the router."""


def problems(text: str) -> list[str]:
    """Return everything in a config.yaml that the installed LiteLLM does not know or refuses; empty when it is good."""
    config = yaml.safe_load(text)
    found = [*_unknown(config, SECTIONS, "the file")]
    for part in (_document, _general, _router, _library, _models, _references):
        found += part(config)
    return found


def _unknown(block: Mapping[str, Any], known: Collection[str], where: str) -> Iterator[str]:
    for key in block:
        if key not in known:
            yield f"unknown key {key!r} in {where}"


def _tried(where: str, call: Callable[[], object]) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LiteLLM's own, about its own code
            call()
    except Exception as error:
        yield f"{where}: {type(error).__name__}: {str(error)[:200]}"


def _document(config: dict[str, Any]) -> Iterator[str]:
    """Check against the documentation type, whose ``mode`` lags behind the modes that health checks really know."""
    modes = HealthCheckHelpers.get_mode_handlers(model="", custom_llm_provider="", model_params={})
    entries = []
    for entry in config["model_list"]:
        mode = entry["model_info"]["mode"]
        if mode not in modes:
            yield f"no health check knows the mode {mode!r}"
        entries.append(entry | {"model_info": entry["model_info"] | {"mode": "chat"}})
    yield from _tried("ConfigYAML", lambda: ConfigYAML.model_validate(config | {"model_list": entries}))


def _general(config: dict[str, Any]) -> Iterator[str]:
    settings = config.get("general_settings", {})
    yield from _unknown(settings, ConfigGeneralSettings.model_fields, "general_settings")
    yield from _tried("general_settings", lambda: ConfigGeneralSettings.model_validate(settings))
    for entry in settings.get("pass_through_endpoints", []):
        yield from _unknown(entry, PassThroughGenericEndpoint.model_fields, "pass_through_endpoints")


def _router(config: dict[str, Any]) -> Iterator[str]:
    settings = config.get("router_settings", {})
    yield from _unknown(settings, inspect.signature(Router.__init__).parameters, "router_settings")
    yield from _tried("router_settings", lambda: UpdateRouterConfig.model_validate(settings))
    yield from _tried("Router", partial(_route, config["model_list"], settings))


def _route(models: list[Any], settings: Mapping[str, Any]) -> None:
    router: Any = Router(model_list=models, **settings)
    router.discard()


def _library(config: dict[str, Any]) -> Iterator[str]:
    settings = config.get("litellm_settings", {})
    yield from _unknown(settings, [*vars(litellm), "callbacks"], "litellm_settings")


def _models(config: dict[str, Any]) -> Iterator[str]:
    known = {*LiteLLM_Params.model_fields, *PASSED_ON}
    identities = [entry["model_info"]["id"] for entry in config["model_list"]]
    if len(set(identities)) != len(identities):
        yield "two deployments with one id"
    for entry in config["model_list"]:
        name, params = entry["model_name"], entry["litellm_params"]
        yield from _unknown(entry, {"model_name", "litellm_params", "model_info"}, f"the entry of {name}")
        yield from _unknown(params, known, f"litellm_params of {name}")
        yield from _tried(f"deployment {name}", partial(Deployment.model_validate, entry))
        provider = partial(litellm.get_llm_provider, params["model"], api_base=params.get("api_base"))
        yield from _tried(f"provider of {name}", provider)


def _references(config: dict[str, Any]) -> Iterator[str]:
    """Names that lead nowhere: LiteLLM finds out when the first request fails."""
    names = {entry["model_name"] for entry in config["model_list"]}
    settings = config.get("router_settings", {})
    aliases = settings.get("model_group_alias", {})
    targets = list(aliases.values())
    for key in ("fallbacks", "context_window_fallbacks"):
        targets += [other for entry in settings.get(key, []) for others in entry.values() for other in others]
    for target in targets:
        if target not in names:
            yield f"{target!r} is no model_name"


def router_keys() -> set[str]:
    """Return the keys of ``router_settings`` that the installed LiteLLM takes."""
    return set(inspect.signature(Router.__init__).parameters) - {"self", "model_list"}


def general_keys() -> set[str]:
    """Return the documented keys of ``general_settings``."""
    return set(ConfigGeneralSettings.model_fields)
