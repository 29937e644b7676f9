"""Any server that is a program of the host, with its own command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.engines import Template, Traits
from labctl.engines.common import Unlimited, assemble, declared, endpoint, served_names
from labctl.model.base import Name, PublicName, SecretName
from labctl.model.deployment import Deployment
from labctl.placed import PlacedGpu, PlacedModel, Server
from labctl.vram.footprint import Footprint
from labctl.workload import ApiFlavour, Endpoint, Health, Native, SecretRef, SecretText, Workload

_CREDENTIAL: Final = re.compile(r"\{credential:([^{}]*)\}")


class CommandDeployment(Deployment):
    """A deployment of a program; ``{port}``, ``{bind}``, ``{models}`` and ``{model}`` in its arguments are filled."""

    program: Annotated[str, Field(description="absolute path, or a name on PATH", min_length=1)]
    health_path: Annotated[str, Field(description="HTTP path that answers 2xx", pattern=r"^/")] = "/health"
    api: Annotated[Literal["openai", "vllm", "ollama"], Field(description="the API that it speaks")] = "openai"
    backend_model: Annotated[PublicName | None, Field(description="the model name that it reports")] = None
    credentials: Annotated[
        dict[Name, SecretName],
        Field(
            description="secrets that it reads from files; `{credential:NAME}` in an argument is the place of one",
            examples=[{"key": "API_KEY"}],
        ),
    ] = {}


class Command(Unlimited):
    """The engine."""

    name = "command"
    spec = CommandDeployment
    measures_free_memory = False

    def check(self, spec: CommandDeployment, models: Sequence[PlacedModel]) -> Iterable[Diagnostic]:
        """Yield what the schema cannot see."""
        for number, argument in enumerate(spec.args):
            unknown = sorted(set(_CREDENTIAL.findall(argument)) - spec.credentials.keys())
            if unknown:
                yield Diagnostic(
                    code="LAB020",
                    summary=f"`{{credential:{unknown[0]}}}` stands for nothing",
                    path=("args", number),
                    hint=f"add `credentials: {{{unknown[0]}: NAME_OF_THE_SECRET}}`",
                )
        if any("{model}" in a for a in spec.args) and not (models and models[0].file):
            yield Diagnostic(
                code="LAB065",
                summary="`{model}` stands for a model file, and this deployment has none",
                path=("args",),
                hint="name a model with a `gguf:` source under `model:`",
            )

    def traits(self, spec: CommandDeployment) -> Traits:  # noqa: ARG002
        """Nothing is known of it."""
        return Traits(gated=False)

    def footprint(
        self,
        spec: CommandDeployment,
        models: Sequence[PlacedModel],  # noqa: ARG002
        gpus: Sequence[PlacedGpu],
        version: str,  # noqa: ARG002
    ) -> Footprint | None:
        """Return the declared budget: nobody can compute it."""
        return declared(spec, len(gpus))

    def workload(self, server: Server, spec: CommandDeployment, template: Template) -> Workload:  # noqa: ARG002
        """Return the native form."""
        models = server.host.places.models
        known = {"port": str(server.port), "bind": server.bind, "models": models}
        if server.models and server.models[0].file:
            known["model"] = f"{models}/{server.models[0].file}"
        native = Native(
            program=spec.program,
            args=tuple(fill(a, known) for a in spec.args),
            credentials={name: SecretText((SecretRef(secret),)) for name, secret in spec.credentials.items()},
        )
        health = Health(path=spec.health_path, start_period=spec.startup or 60)
        return assemble(server, spec, (native,), listen=server.port, health=health, what=spec.program)

    def endpoints(self, server: Server, spec: CommandDeployment) -> tuple[Endpoint, ...]:
        """Return the one endpoint."""
        serves = served_names(server, spec)
        return (endpoint(server, spec, ApiFlavour(spec.api), spec.backend_model or serves[0], serves),)


def fill(text: str, known: dict[str, str]) -> str:
    """Replace ``{name}`` for known names and leave every other brace alone."""
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return text


engine = Command()
