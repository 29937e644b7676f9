"""Ollama: several models of its library behind one server, loaded as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.engines import Template, Traits
from labctl.engines.common import Unlimited, assemble, declared, endpoint
from labctl.model.base import Duration, Positive
from labctl.model.deployment import Deployment
from labctl.placed import PlacedGpu, PlacedModel, Server
from labctl.vram.footprint import Footprint
from labctl.workload import ApiFlavour, Container, Endpoint, EnvValue, Health, Mount, Native, Workload

LISTEN: Final = 11434

PULL_AND_SERVE: Final = """\
ollama serve & server=$!
trap 'kill "$server"; wait "$server"' TERM INT
until ollama list >/dev/null 2>&1; do sleep 1; done
for model; do ollama pull "$model" || exit 1; done
wait "$server"
"""
"""Serves, and pulls what is missing; a model that is present costs one request."""


class OllamaDeployment(Deployment):
    """A deployment on Ollama."""

    context: Annotated[Positive, Field(description="tokens of context per request")] = 4096
    parallel: Annotated[Positive, Field(description="requests at a time per model")] = 1
    loaded: Annotated[Positive, Field(description="models in memory at a time")] = 1
    keep_alive: Annotated[Duration | Literal["forever"], Field(description="how long an idle model stays loaded")] = 300
    kv_cache: Annotated[Literal["f16", "q8_0", "q4_0"], Field(description="type of the KV cache")] = "f16"
    flash_attention: bool = True


class Ollama(Unlimited):
    """The engine."""

    name = "ollama"
    spec = OllamaDeployment
    measures_free_memory = True

    def check(self, spec: OllamaDeployment, models: Sequence[PlacedModel]) -> Iterable[Diagnostic]:
        """Yield what the schema cannot see."""
        if not models:
            yield Diagnostic(
                code="LAB020", summary="Ollama serves the models it lists, and none is", hint="add `models:`"
            )
        for model in models:
            if model.kind != "ollama":
                yield Diagnostic(
                    code="LAB065",
                    summary=f"Ollama pulls from its own library, and model `{model.name}` is `{model.source}`",
                    path=("models",) if spec.models else ("model",),
                    hint="give the model an `ollama:` source, or use engine `llama.cpp` for GGUF files",
                )

    def traits(self, spec: OllamaDeployment) -> Traits:
        """Return the settings that depend on card and build."""
        flash = "on" if spec.flash_attention else "off"
        return Traits(kv_cache=(spec.kv_cache, spec.kv_cache), flash_attention=flash)

    def footprint(
        self,
        spec: OllamaDeployment,
        models: Sequence[PlacedModel],
        gpus: Sequence[PlacedGpu],
        version: str,  # noqa: ARG002 - Ollama has its own rules whatever the version
    ) -> Footprint | None:
        """Return the computed footprint of the largest models that may be loaded together, or the declared one."""
        stated = declared(spec, len(gpus))
        known = [(m.name, m.gguf) for m in models if m.gguf is not None]
        if stated is not None or len(known) < len(models) or not known:
            return stated
        from labctl.vram import ollama  # noqa: PLC0415 - heavy; needed by this engine only

        settings = ollama.Settings(
            context=spec.context,
            parallel=spec.parallel,
            max_loaded=spec.loaded,
            kv_cache=spec.kv_cache,
            flash_attention=spec.flash_attention,
            devices=max(1, len(gpus)),
            gpu_bytes=min((g.memory - g.reserve for g in gpus), default=0),
        )
        return ollama.estimate([ollama.Model(name=name, facts=facts) for name, facts in known], settings)

    def workload(self, server: Server, spec: OllamaDeployment, template: Template) -> Workload:  # noqa: ARG002
        """Return the container and the native form."""
        names = tuple(m.source for m in server.models)
        script = ("-c", PULL_AND_SERVE, "ollama", *names)
        container = Container(
            image=server.runtime.image or "",
            chosen=spec.image is not None,
            entrypoint=("/bin/sh",),
            args=script,
            mounts=(Mount(source=f"{server.deployment}-models", target="/root/.ollama", volume=True),),
            env={"OLLAMA_HOST": f"0.0.0.0:{LISTEN}"},
            probe=server.runtime.probe,
        )
        native = Native(program="/bin/sh", args=script, env={"OLLAMA_HOST": f"{server.bind}:{server.port}"})
        return assemble(
            server,
            spec,
            (container, native) if server.runtime.image else (native,),
            listen=LISTEN if server.runtime.image else server.port,
            health=Health(command=("/bin/sh", "-c", _all_present(server, names)), start_period=spec.startup or 1800),
            env=_environment(spec),
            product="ollama",
            what=f"Ollama {server.runtime.version} serving {len(names)} models",
        )

    def endpoints(self, server: Server, spec: OllamaDeployment) -> tuple[Endpoint, ...]:
        """Return one endpoint per model; a single model may have several public names."""
        single = spec.serves if len(server.models) == 1 else ()
        return tuple(endpoint(server, spec, ApiFlavour.OLLAMA, m.source, single or (m.name,)) for m in server.models)


def _all_present(server: Server, names: Sequence[str]) -> str:
    """Return a command that succeeds once all is pulled; outside a container nothing says where the server is."""
    where = f"export OLLAMA_HOST=${{OLLAMA_HOST:-{server.bind}:{server.port}}}; "
    return where + (" && ".join(f"ollama show {name} >/dev/null" for name in names) or "ollama list")


def _environment(spec: OllamaDeployment) -> dict[str, EnvValue]:
    """Return Ollama's settings (ollama, envconfig/config.go, 2026-08).

    Nothing is pruned at a start: servers of one deployment on one host share a folder, and one may be pulling into it.
    """
    return {
        "OLLAMA_CONTEXT_LENGTH": str(spec.context),
        "OLLAMA_FLASH_ATTENTION": "1" if spec.flash_attention else "0",
        "OLLAMA_KEEP_ALIVE": "-1" if spec.keep_alive == "forever" else f"{spec.keep_alive}s",
        "OLLAMA_KV_CACHE_TYPE": spec.kv_cache,
        "OLLAMA_MAX_LOADED_MODELS": str(spec.loaded),
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NUM_PARALLEL": str(spec.parallel),
    }


engine = Ollama()
