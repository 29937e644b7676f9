"""Deployments: what every engine's block has in common. An engine's own keys are fields of its subclass."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from labctl.model.base import Block, Duration, Name, PortNumber, Positive, PublicName, Rate, SecretName, Size
from labctl.model.fields import ImageName, OneOrMany, conflict
from labctl.model.host import CpuFeature
from labctl.workload import Task

GpuRef = int | Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9a-fA-F-]+$")]


class Placement(Block):
    """Where a deployment runs."""

    host: Name
    gpus: Annotated[
        Literal["all", "none"] | tuple[GpuRef, ...],
        Field(description="cards by index or UUID; one server per card unless `gpus_per_server` says otherwise"),
    ] = "none"
    gpus_per_server: Annotated[Positive, Field(description="cards that one server spans")] = 1
    servers: Annotated[Positive, Field(description="servers per card, or servers without a card")] = 1


class Limits(Block):
    """What a deployment may be asked for, over all its servers."""

    rpm: Annotated[Rate | None, Field(description="requests per minute", examples=["45 rpm"])] = None
    tpm: Annotated[Rate | None, Field(description="tokens per minute")] = None
    parallel: Annotated[Positive | None, Field(description="requests at a time")] = None


class DeclaredVram(Block):
    """A budget that is stated because nobody can compute it."""

    declared: Size


class FromSecret(Block):
    """A value that is a secret."""

    secret: SecretName


class Build(Block):
    """An image that labctl builds on the host, once."""

    version: Annotated[str | None, Field(description="release to build", examples=["b11549"])] = None
    cuda: Annotated[str | None, Field(description="CUDA version of the toolkit", pattern=r"^\d+\.\d+(\.\d+)?$")] = None
    capabilities: Annotated[
        tuple[Annotated[str, Field(pattern=r"^\d+\.\d+$")], ...], Field(description="compute capabilities to build for")
    ] = ()
    cpu: Annotated[
        Literal["baseline", "native"] | tuple[CpuFeature, ...],
        Field(description="x86 extensions: none above the baseline, the host's own, or these"),
    ] = "baseline"


_INSIDE_ON: Final = {
    "replicas": "remove it, or write `servers:` inside `on`",
    "gpus_per_server": "write it inside `on`",
}


class Deployment(Block):
    """One model (or several), served by one engine, on one or more cards."""

    engine: Annotated[str, Field(description="the server program", examples=["llama.cpp"])]
    model: Annotated[Name | None, Field(description="a key of `models`")] = None
    models: Annotated[tuple[Name, ...], Field(description="keys of `models`, for engines that serve several")] = ()
    task: Annotated[Task, Field(description="what it is asked for", strict=False)] = Task.CHAT
    on: Annotated[OneOrMany[Placement], Field(description="where it runs; left out, labctl places it by budget")] = ()
    replicas: Annotated[Positive | None, Field(description="servers to place when `on` is left out")] = None
    gpus_per_server: Annotated[
        Positive | None, Field(description="cards that each server spans when `on` is left out")
    ] = None
    port: Annotated[PortNumber | None, Field(description="host port of the first server; the others follow")] = None
    serves: Annotated[
        OneOrMany[PublicName], Field(description="names that clients ask for; default: the model's key")
    ] = ()
    limits: Limits = Limits()
    timeout: Annotated[Duration | None, Field(description="longest a request may take")] = None
    startup: Annotated[Duration | None, Field(description="longest it may take to start")] = None
    memory_limit: Annotated[Size | None, Field(description="RAM per server")] = None
    swap_limit: Annotated[Size | None, Field(description="RAM and swap together, per server")] = None
    cpus: Annotated[float | None, Field(description="CPU cores per server", gt=0)] = None
    vram: Annotated[
        Size | DeclaredVram | None, Field(description="a cap on its budget per card, or `{declared: 4 GiB}`")
    ] = None
    image: Annotated[ImageName | None, Field(description="container image in place of the one labctl would choose")] = (
        None
    )
    flavour: Annotated[str | None, Field(description="build of the engine, e.g. `cuda12`, `vulkan`, `embedded`")] = None
    build: Annotated[Build | None, Field(description="build the image on the host instead of pulling one")] = None
    start: Literal["always", "on-demand"] = "always"
    env: Annotated[dict[str, str | FromSecret], Field(description="environment; `{secret: NAME}` for secrets")] = {}
    args: Annotated[tuple[str, ...], Field(description="further arguments, after labctl's own")] = ()
    extra: Annotated[dict[str, dict[str, Any]], Field(description="per target, merged last into what it renders")] = {}

    @model_validator(mode="after")
    def _declared_or_placed(self) -> Self:
        for key in ("replicas", "gpus_per_server"):
            if self.on and getattr(self, key) is not None:
                conflict(f"`on` says where each server runs, so `{key}` says nothing", _INSIDE_ON[key])
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """The keys of ``models`` that it serves."""
        return ((self.model,) if self.model else ()) + self.models
