"""LiteLLM's proxy: one OpenAI-compatible endpoint with keys, limits, retries and fallbacks in front of every model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from labctl.diagnostics import Diagnostic
from labctl.emit import yaml
from labctl.gateways import WORKLOAD, GatewayAsk
from labctl.gateways.litellm import tasks
from labctl.gateways.litellm.check import problems
from labctl.gateways.litellm.config import AUTH_MODULE, MASTER_KEY, SWAP_KEY, build, route_secrets, traces
from labctl.gateways.litellm.options import LiteLLMBlock
from labctl.workload import (
    ConfigFile,
    Container,
    Endpoint,
    EnvValue,
    Health,
    Metrics,
    Native,
    Port,
    SecretRef,
    SecretText,
    Workload,
)

LISTEN: Final = 4000
"""Inside a container (docs/proxy/deploy.md)."""

_CONFIG: Final = "/app/config.yaml"
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
"""No .env file of the working folder is read; the price list is the installed one, not a download."""

_CALLBACK_SECRETS: Final[Mapping[str, tuple[str, ...]]] = {
    "langfuse": ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"),
    "langfuse_otel": ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"),
}


class LiteLLM:
    """The gateway."""

    name = "litellm"
    options = LiteLLMBlock
    calls = ("phoenix",)

    def check(
        self, options: LiteLLMBlock, endpoints: Iterable[Endpoint], databases: Collection[str]
    ) -> Iterable[Diagnostic]:
        """Return what the schema cannot see: names that nobody serves, secrets written out, circles of fallbacks."""
        return problems(options, tuple(endpoints), databases)

    def database(self, options: LiteLLMBlock) -> str | None:
        """Return the service that keeps the virtual keys."""
        return options.keys.database

    def master_key(self, options: LiteLLMBlock) -> str:
        """Return the name of the master key's secret."""
        return options.keys.master

    def objections(self, ask: GatewayAsk) -> Iterable[Diagnostic]:  # noqa: ARG002 - the protocol's signature
        """Return nothing: it takes servers as they are."""
        return ()

    def workloads(self, ask: GatewayAsk) -> tuple[Workload, ...]:
        """Return the proxy; with a database also the tasks that give it its tables and the services their keys."""
        options: LiteLLMBlock = ask.options
        image = ask.options.image or ask.image
        workload = Workload(
            name=WORKLOAD,
            host=ask.host.name,
            forms=(_container(ask), _native(ask)),
            product="litellm",
            env=_environment(ask),
            files=_files(ask),
            ports=(Port(name="http", listen=LISTEN, published=ask.port, bind=ask.bind),),
            # /health would call every model; liveliness (LiteLLM's spelling) asks the proxy alone.
            health=Health(path="/health/liveliness", start_period=180),
            after=(tasks.TABLES,) if ask.database else (),
            memory_limit=options.memory_limit,
            replicas=options.replicas,
            public=("http",),
            metrics=Metrics(kind="litellm", path="/metrics/", keyed=True) if _is_measured(ask) else None,
            origin=("gateway",),
            extra=options.extra,
            description="LiteLLM proxy",
        )
        if ask.database is None:
            return (workload,)
        keys = (tasks.keys(ask, workload, image),) if ask.clients else ()
        return (workload, tasks.tables(ask, ask.database, image), *keys)


def _is_measured(ask: GatewayAsk) -> bool:
    return any(client.metrics for client in ask.clients)


def _files(ask: GatewayAsk) -> tuple[ConfigFile, ...]:
    value = build(ask)
    config = ConfigFile(name="config.yaml", content=yaml.dump(value), target=_CONFIG, value=value)
    if ask.options.keys.database:
        return (config,)
    return (config, tasks.shipped(AUTH_MODULE))


def _container(ask: GatewayAsk) -> Container:
    return Container(
        image=ask.options.image or ask.image,
        chosen=ask.options.image is not None,
        args=("--config", _CONFIG, "--port", str(LISTEN), "--num_workers", str(ask.options.workers)),
        probe=ask.probe,
    )


def _native(ask: GatewayAsk) -> Native:
    args = ("-m", "labctl.embedded.litellm_proxy", "--config", "{config:config.yaml}")
    address = ("--host", ask.bind, "--port", str(ask.port))
    return Native(program="{python}", args=(*args, *address, "--num_workers", str(ask.options.workers)))


def _environment(ask: GatewayAsk) -> dict[str, EnvValue]:
    options: LiteLLMBlock = ask.options
    env: dict[str, EnvValue] = {**_ENVIRONMENT, MASTER_KEY: _secret(options.keys.master)}
    if ask.database:
        # the tables are made by a task, once, before any proxy starts (docs/proxy/database_migrations)
        env |= {"DATABASE_URL": ask.database.url, "LITELLM_SALT_KEY": _secret(options.keys.salt)}
        env |= {"DISABLE_SCHEMA_UPDATE": "true"}
    else:
        env |= tasks.client_keys(ask)
    if options.swap and options.swap.key:
        env |= {SWAP_KEY: _secret(options.swap.key)}
    for name, route in options.routes.items():
        secrets = {**({"api_key": route.key} if route.key else {}), **route.secrets}
        env |= {variable: _secret(secrets[p]) for p, variable in route_secrets(name, route).items()}
    for callback in options.callbacks:
        env |= {name: _secret(name) for name in _CALLBACK_SECRETS.get(callback, ())}
    phoenix = traces(ask)
    if phoenix is not None:
        env |= {"PHOENIX_COLLECTOR_HTTP_ENDPOINT": f"{phoenix}/v1/traces", "PHOENIX_PROJECT_NAME": ask.lab}
    return {**env, **options.env, **{name: _secret(secret) for name, secret in options.secret_env.items()}}


def _secret(name: str) -> SecretText:
    return SecretText((SecretRef(name),))


gateway = LiteLLM()
