"""SearXNG: web search for chat pages, reachable by those that ask it and by nobody else.

Settings: docs.searxng.org/admin/settings; the image starts Granian at 8080 and reads /etc/searxng/settings.yml
(searxng/searxng, container/dist.dockerfile and container/entrypoint.sh).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from labctl.emit import yaml
from labctl.model.base import Duration, SecretName
from labctl.services import ServiceAsk
from labctl.services.common import Environment, Plain, container, secret
from labctl.workload import ConfigFile, Health, Workload

LISTEN: Final = 8080
SETTINGS: Final = "/etc/searxng/settings.yml"


class SearxngBlock(Environment):
    """A metasearch engine for the lab's own pages."""

    session_key: Annotated[SecretName, Field(description="secret that signs its cookies")] = "SEARXNG_SECRET"
    language: Annotated[str, Field(description="language of results, `all` or e.g. `en`")] = "all"
    safe_search: Annotated[Literal["off", "moderate", "strict"], Field(description="filter of results")] = "moderate"
    timeout: Annotated[Duration, Field(description="longest that a search engine may take")] = 5
    engines: Annotated[
        tuple[str, ...], Field(description="search engines to use, by SearXNG's names; default: SearXNG's choice")
    ] = ()
    settings: Annotated[dict[str, Any], Field(description="merged last into SearXNG's settings.yml")] = {}


class Searxng(Plain):
    """The service."""

    name = "searxng"
    options = SearxngBlock
    ports = MappingProxyType({"http": LISTEN})

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the one server."""
        options: SearxngBlock = ask.options
        value = settings(ask.lab, options)
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(container(ask),),
            product="searxng",
            env={"SEARXNG_SECRET": secret(options.session_key), "FORCE_OWNERSHIP": "false", **options.extra_env},
            files=(ConfigFile(name="settings.yml", content=yaml.dump(value), target=SETTINGS, value=value),),
            ports=tuple(ask.ports.values()),
            health=Health(path="/healthz", start_period=60),
            memory_limit=options.memory_limit,
            origin=ask.origin,
            extra=options.extra,
            description="SearXNG",
        )
        return (workload,)


def settings(lab: str, options: SearxngBlock) -> dict[str, Any]:
    """Return settings.yml; the secret key comes from the environment."""
    defaults: Any = {"engines": {"keep_only": list(options.engines)}} if options.engines else True
    base: dict[str, Any] = {
        "use_default_settings": defaults,
        "general": {"instance_name": f"{lab} search", "enable_metrics": False},
        "search": {
            "safe_search": {"off": 0, "moderate": 1, "strict": 2}[options.safe_search],
            "default_lang": options.language,
            # chat pages read JSON; SearXNG answers 403 to formats that are not listed
            "formats": ["html", "json"],
        },
        # the limiter wants a Valkey and would count the lab's own page as a robot
        "server": {"limiter": False, "public_instance": False, "image_proxy": False},
        "outgoing": {"request_timeout": float(options.timeout)},
    }
    return _merge(base, options.settings)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


service = Searxng()
