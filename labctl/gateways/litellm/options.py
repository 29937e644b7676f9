"""The ``gateway`` block of lab.yaml when its engine is LiteLLM."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from labctl.gateways.builtin.options import BuiltinBlock, BuiltinKeys, Queue
from labctl.model.base import Block, Duration, Name, PortNumber, Positive, PublicName, Rate, SecretName, Size
from labctl.model.fields import ImageName, OneOrMany
from labctl.model.gateway import GatewayBlock

Callback = Literal["prometheus", "langfuse", "langfuse_otel", "otel", "arize_phoenix"]

Strategy = Literal[
    "simple-shuffle", "least-busy", "latency-based-routing", "usage-based-routing-v2", "cost-based-routing"
]

Plain = Annotated[str, Field(description="not a secret: write secrets by name")]


def _no_database(value: Any) -> Any:
    return None if value == "none" else value


class Keys(Block):
    """Who may ask: the master key, and virtual keys when there is a database."""

    database: Annotated[
        Name | None,
        BeforeValidator(_no_database),
        Field(description="the PostgreSQL service that keeps virtual keys; `none`: only the master key works"),
    ] = None
    master: Annotated[
        SecretName, Field(description="secret that holds the master key; its value starts with `sk-`")
    ] = "LITELLM_MASTER_KEY"
    salt: Annotated[SecretName, Field(description="secret that encrypts the database; never change its value")] = (
        "LITELLM_SALT_KEY"
    )


class GroupLimits(Block):
    """Limits of one public name, over all its servers; they replace the deployment's own."""

    rpm: Annotated[Rate | None, Field(description="requests per minute")] = None
    tpm: Annotated[Rate | None, Field(description="tokens per minute")] = None
    parallel: Annotated[Positive | None, Field(description="requests at a time, per server")] = None


class Cooldown(Block):
    """When a failing server is left alone, and for how long."""

    after_fails: Annotated[int, Field(description="failures within a minute that are still allowed", ge=0)] = 2
    for_: Annotated[Duration, Field(alias="for", description="how long it gets no requests")] = 60


class HealthChecks(Block):
    """Background checks: each is a real request to every model, so they are off unless asked for."""

    every: Annotated[Duration, Field(description="time between two rounds")] = 300
    concurrency: Annotated[Positive | None, Field(description="checks at a time")] = None
    timeout: Annotated[Duration | None, Field(description="longest a check may take")] = None
    routing: Annotated[bool, Field(description="send nothing to servers whose last check failed")] = False


class CloudRoute(Block):
    """A model of a cloud provider behind a public name."""

    model: Annotated[
        str, Field(description="provider and model", pattern=r"^[a-z0-9_]+/.+$", examples=["anthropic/claude-sonnet-5"])
    ]
    key: Annotated[SecretName | None, Field(description="secret that holds the provider's API key")] = None
    base: Annotated[
        str | None, Field(description="the provider's URL, where it has several", pattern=r"^https?://")
    ] = None
    version: Annotated[str | None, Field(description="API version (Azure)")] = None
    task: Literal["chat", "complete", "embed", "rerank", "transcribe", "speak", "image"] = "chat"
    rpm: Annotated[Rate | None, Field(description="requests per minute")] = None
    tpm: Annotated[Rate | None, Field(description="tokens per minute")] = None
    timeout: Annotated[Duration | None, Field(description="longest a request may take")] = None
    secrets: Annotated[
        dict[str, SecretName], Field(description="further parameters whose values are secrets, e.g. AWS keys")
    ] = {}
    params: Annotated[
        dict[str, str | int | float | bool], Field(description="further `litellm_params` that are not secret")
    ] = {}


class PassThrough(Block):
    """A path of the gateway that is handed on as it is, for APIs that LiteLLM does not know."""

    path: Annotated[str, Field(description="path on the gateway", pattern=r"^/[A-Za-z0-9._/-]+$")]
    to: Annotated[PublicName, Field(description="public name of the model whose server gets it")]
    target: Annotated[str, Field(description="path on that server", pattern=r"^/")] = "/v1/embeddings"
    methods: Annotated[OneOrMany[Literal["GET", "POST", "PUT", "DELETE", "PATCH"]], Field(min_length=1)] = ("POST",)
    timeout: Annotated[Duration | None, Field(description="default: that model's own, else the gateway's")] = None
    subpaths: Annotated[bool, Field(description="hand on what lies below the path too")] = False
    auth: Annotated[bool, Field(description="ask for a key")] = True


class Swap(Block):
    """labctl's own gateway behind LiteLLM, one on each host with on-demand deployments: it loads what is asked for."""

    port: Annotated[PortNumber, Field(description="its port on each of these hosts")] = 8888
    key: Annotated[SecretName | None, Field(description="secret that opens it; default: nobody is asked")] = None
    queue: Queue = Queue()
    pin: Annotated[tuple[Name, ...], Field(description="deployments that are loaded at the start and stay")] = ()
    preload: Annotated[tuple[Name, ...], Field(description="deployments that are loaded at the start")] = ()
    idle: Annotated[Duration | None, Field(description="unload on-demand models that nobody asked for so long")] = None
    residency: Annotated[Duration, Field(description="shortest time that a model stays loaded")] = 0
    image: Annotated[ImageName | None, Field(description="container image in place of the one labctl builds")] = None
    memory_limit: Size | None = None
    extra: Annotated[dict[str, dict[str, Any]], Field(description="per target, merged last into what it renders")] = {}


class LiteLLMBlock(GatewayBlock):
    """A LiteLLM proxy."""

    keys: Keys = Keys()
    aliases: Annotated[dict[PublicName, PublicName], Field(description="further public name → public name")] = {}
    limits: Annotated[dict[PublicName, GroupLimits], Field(description="per public name, over all its servers")] = {}
    parallel: Annotated[Positive | None, Field(description="requests at a time, over everything; more wait")] = None
    queue: Annotated[int, Field(description="requests that may wait when `parallel` is reached", ge=0)] = 100
    retries: Annotated[int, Field(description="further tries of a failed request, on another server", ge=0)] = 2
    cooldown: Cooldown = Cooldown()
    timeout: Annotated[Duration, Field(description="longest a request may take, where a model does not say")] = 600
    stream_timeout: Annotated[Duration | None, Field(description="longest silence within a stream")] = None
    strategy: Annotated[Strategy, Field(description="which server of a model gets a request")] = "simple-shuffle"
    health: Annotated[HealthChecks | None, Field(description="background checks; default: none")] = None
    fallbacks: Annotated[
        dict[PublicName, OneOrMany[PublicName]], Field(description="public name → names to try when it fails")
    ] = {}
    context_fallbacks: Annotated[
        dict[PublicName, OneOrMany[PublicName]], Field(description="the same, when a prompt is too long")
    ] = {}
    routes: Annotated[dict[PublicName, CloudRoute], Field(description="models of cloud providers")] = {}
    pass_through: Annotated[tuple[PassThrough, ...], Field(description="paths handed on unchanged")] = ()
    callbacks: Annotated[tuple[Callback, ...], Field(description="where metrics and traces go")] = ()
    drop_params: Annotated[bool, Field(description="drop request parameters that a model does not know")] = True
    swap: Annotated[
        Swap | None, Field(description="swap on-demand deployments: labctl's own gateway, behind this one")
    ] = None
    workers: Annotated[Positive, Field(description="processes")] = 1
    replicas: Annotated[Positive, Field(description="how many proxies run, where the target can run several")] = 1
    env: Annotated[dict[str, Plain], Field(description="further environment")] = {}
    secret_env: Annotated[dict[str, SecretName], Field(description="further environment whose values are secrets")] = {}
    config: Annotated[dict[str, Any], Field(description="merged last into LiteLLM's own config.yaml")] = {}

    @property
    def swapper(self) -> BuiltinBlock | None:
        """Labctl's own gateway as a block of its own."""
        if self.swap is None:
            return None
        given = {name: getattr(self.swap, name) for name in Swap.model_fields if name != "key"}
        return BuiltinBlock.model_construct(
            engine="builtin", keys=BuiltinKeys(master=self.swap.key), timeout=self.timeout, **given
        )
