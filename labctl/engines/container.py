"""Any server in a container image: Stable Diffusion, speech, a model server that labctl does not know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.engines import Template, Traits
from labctl.engines.common import Unlimited, assemble, declared, endpoint, models_mount, served_names
from labctl.model.base import Block, PortNumber, PublicName, Size
from labctl.model.deployment import Deployment
from labctl.model.fields import ImageName
from labctl.placed import PlacedGpu, PlacedModel, Server
from labctl.vram.footprint import Footprint
from labctl.workload import ApiFlavour, Container, Endpoint, Health, Mount, Probe, Workload


class Volume(Block):
    """A named volume inside the container; its data is never deleted unasked."""

    volume: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    at: Annotated[str, Field(description="absolute path in the container", pattern=r"^/.+")]


class HealthCheck(Block):
    """How to see that a server is ready."""

    path: Annotated[str | None, Field(description="HTTP path that answers 2xx", pattern=r"^/")] = None
    command: Annotated[tuple[str, ...], Field(description="command in the container that succeeds")] = ()
    with_: Annotated[
        Literal["curl", "wget", "python3", "none"],
        Field(alias="with", description="what the image has to ask itself; `none`: labctl asks from outside"),
    ] = "curl"


class ContainerDeployment(Deployment):
    """A deployment of a container image."""

    image: Annotated[ImageName | None, Field(description="the image, with a tag or digest")] = None
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    listens: Annotated[PortNumber, Field(description="the port it listens on inside")] = 8000
    health: HealthCheck = HealthCheck(path="/health")
    api: Annotated[Literal["openai", "vllm", "ollama"], Field(description="the API that it speaks")] = "openai"
    backend_model: Annotated[PublicName | None, Field(description="the model name that it reports")] = None
    volumes: tuple[Volume, ...] = ()
    mount_models: Annotated[bool, Field(description="mount the host's models folder at /models")] = False
    shared_memory: Annotated[Size | None, Field(description="size of /dev/shm")] = None


class AnyContainer(Unlimited):
    """The engine."""

    name = "container"
    spec = ContainerDeployment
    measures_free_memory = False

    def check(self, spec: ContainerDeployment, models: Sequence[PlacedModel]) -> Iterable[Diagnostic]:  # noqa: ARG002
        """Yield what the schema cannot see."""
        if spec.image is None:
            yield Diagnostic(
                code="LAB020", summary="engine `container` needs an image", hint="add `image: registry/name:tag`"
            )

    def traits(self, spec: ContainerDeployment) -> Traits:  # noqa: ARG002
        """Nothing is known of it."""
        return Traits(gated=False)

    def footprint(
        self,
        spec: ContainerDeployment,
        models: Sequence[PlacedModel],  # noqa: ARG002
        gpus: Sequence[PlacedGpu],
        version: str,  # noqa: ARG002
    ) -> Footprint | None:
        """Return the declared budget: nobody can compute it."""
        return declared(spec, len(gpus))

    def workload(self, server: Server, spec: ContainerDeployment, template: Template) -> Workload:  # noqa: ARG002
        """Return the container form."""
        volumes = tuple(Mount(source=v.volume, target=v.at, volume=True) for v in spec.volumes)
        container = Container(
            image=spec.image or "",
            entrypoint=spec.entrypoint or None,
            args=(*spec.command, *spec.args),
            mounts=(*(models_mount(server) if spec.mount_models else ()), *volumes),
            probe=Probe(spec.health.with_),
            shm_size=spec.shared_memory,
        )
        health = Health(path=spec.health.path, command=spec.health.command, start_period=spec.startup or 120)
        return assemble(server, spec, (container,), listen=spec.listens, health=health, what=f"{spec.image}")

    def endpoints(self, server: Server, spec: ContainerDeployment) -> tuple[Endpoint, ...]:
        """Return the one endpoint."""
        serves = served_names(server, spec)
        return (endpoint(server, spec, ApiFlavour(spec.api), spec.backend_model or serves[0], serves),)


engine = AnyContainer()
