"""What several engines do the same way. An engine uses these; nothing makes it do so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labctl.diagnostics import Diagnostic, DocPath
from labctl.model.deployment import DeclaredVram, Deployment, FromSecret
from labctl.placed import PlacedGpu, PlacedModel, Server
from labctl.vram.footprint import DeviceBytes, Footprint, Step
from labctl.workload import (
    ApiFlavour,
    Container,
    Endpoint,
    EnvValue,
    GpuClaim,
    Health,
    Metrics,
    Mount,
    Native,
    Port,
    SecretRef,
    SecretText,
    Start,
    Workload,
)

MODELS_IN_CONTAINER = "/models"


class Unlimited:
    """An engine that knows no limits beyond its footprint."""

    def limits(
        self,
        spec: Any,  # noqa: ARG002 - the protocol's signature
        models: Sequence[PlacedModel],  # noqa: ARG002
        gpus: Sequence[PlacedGpu],  # noqa: ARG002
        version: str,  # noqa: ARG002
    ) -> Iterable[Diagnostic]:
        """Return nothing."""
        return ()


def environment(env: Mapping[str, str | FromSecret]) -> dict[str, EnvValue]:
    """Return a block's ``env`` as a workload's."""
    return {k: v if isinstance(v, str) else SecretText((SecretRef(v.secret),)) for k, v in env.items()}


def served_names(server: Server, spec: Deployment) -> tuple[str, ...]:
    """Return the public names: as declared, else the first model's key."""
    return spec.serves or (server.models[0].name if server.models else server.deployment,)


def models_mount(server: Server) -> tuple[Mount, ...]:
    """Return the read-only mount of the host's models folder."""
    return (Mount(source=server.host.places.models, target=MODELS_IN_CONTAINER, read_only=True),)


def model_files(models: Sequence[PlacedModel]) -> tuple[str, ...]:
    """Return the files in the models folder that a server reads."""
    return tuple(f for m in models for f in (m.file, m.projector) if f)


def claim(server: Server) -> GpuClaim | None:
    """Return a server's claim on its cards, None when it has none or runs on the CPU."""
    if not server.gpus or server.runtime.accelerator is None:
        return None
    return server.host.claim(server.gpus, server.runtime.accelerator, server.budget)


def http_port(server: Server, listen: int) -> Port:
    """Return the port of a server that listens on ``listen`` in its container."""
    return Port(name="http", listen=listen, published=server.port if server.published else None, bind=server.bind)


def assemble(  # noqa: PLR0913 - the parts in which engines differ
    server: Server,
    spec: Deployment,
    forms: tuple[Container | Native, ...],
    *,
    listen: int,
    health: Health,
    env: Mapping[str, EnvValue] | None = None,
    metrics: Metrics | None = None,
    product: str = "",
    what: str,
) -> Workload:
    """Return a workload from what is the same for every engine and the parts that differ."""
    return Workload(
        name=server.name,
        host=server.host.name,
        forms=forms,
        product=product,
        env={**server.runtime.env, **(env or {}), **environment(spec.env)},
        ports=(http_port(server, listen),),
        gpu=claim(server),
        health=health,
        after=server.after,
        memory_limit=spec.memory_limit,
        swap_limit=spec.swap_limit,
        cpus=spec.cpus,
        models=model_files(server.models),
        start=Start.ON_DEMAND if server.on_demand else Start.ALWAYS,
        turns=server.turns,
        metrics=metrics,
        origin=server.origin,
        extra=spec.extra,
        description=what,
    )


def endpoint(
    server: Server,
    spec: Deployment,
    flavour: ApiFlavour,
    backend_model: str,
    serves: tuple[str, ...],
    *,
    slots: int | None = None,
) -> Endpoint:
    """Return the endpoint of one model on a server."""
    return Endpoint(
        workload=server.name,
        host=server.host.name,
        flavour=flavour,
        task=spec.task,
        backend_model=backend_model,
        serves=serves,
        rpm=server.rpm,
        tpm=server.tpm,
        parallel=server.parallel,
        slots=slots,
        timeout=spec.timeout,
        on_demand=server.on_demand or server.turns is not None,
        label=server.label,
        origin=server.origin,
    )


def declared(spec: Deployment, gpus: int) -> Footprint | None:
    """Return the footprint of a declared budget, the same on each card; None when there is none."""
    if not isinstance(spec.vram, DeclaredVram):
        return None
    size = spec.vram.declared
    step = Step("declared", size, "`vram: {declared: …}` in lab.yaml", "lab.yaml")
    return Footprint(devices=(DeviceBytes(other=size),) * gpus, steps=(step,), declared=True)


def needs_model(models: Sequence[PlacedModel], engine: str, source: str) -> Iterable[Diagnostic]:
    """Yield a problem when a server has no model, or more than one."""
    if len(models) != 1:
        path: DocPath = ("models",) if len(models) > 1 else ()
        yield Diagnostic(
            code="LAB020" if not models else "LAB027",
            summary=f"{engine} serves one model per deployment, and this one names {len(models) or 'none'}",
            path=path,
            hint=f"write `model:` and the key of a model with `{source}:`",
        )
