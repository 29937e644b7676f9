"""llama.cpp's ``llama-server``: GGUF models on anything from a P106 to an H200, or on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from labctl.diagnostics import Diagnostic
from labctl.engines import Template, Traits
from labctl.engines.common import (
    MODELS_IN_CONTAINER,
    Unlimited,
    assemble,
    declared,
    endpoint,
    models_mount,
    needs_model,
    served_names,
)
from labctl.engines.llama_cpp_image import image_build
from labctl.model.base import Block, Positive
from labctl.model.deployment import Deployment
from labctl.placed import PlacedGpu, PlacedModel, Server
from labctl.vram.footprint import Footprint
from labctl.workload import Accelerator, ApiFlavour, Child, Container, Endpoint, Health, Metrics, Native, Task, Workload

LISTEN: Final = 8080
"""Inside a container: the images' own HEALTHCHECK asks there (llama.cpp, .devops/cuda.Dockerfile, b11549)."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
"""llama.cpp, common/arg.cpp, ``kv_cache_types``, b11549."""

PROGRAMS: Final = {"embedded": ("{python}", "-m", "labctl.embedded.llama_server")}
"""Build flavour → how it is started as a program of the host, where that is not ``llama-server`` on PATH."""

CARD_NAMES: Final = {Accelerator.CUDA: "CUDA", Accelerator.ROCM: "ROCm", Accelerator.VULKAN: "Vulkan"}
"""What ``--device`` calls cards, followed by their number (ggml-cuda.h, ggml-vulkan.cpp, b11549)."""


def _as_word(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[
    Literal["on", "off", "auto"],
    BeforeValidator(_as_word),
    WithJsonSchema({"enum": ["on", "off", "auto", True, False]}),
]
"""``on``, ``off`` or ``auto``; ``true`` and ``false`` are understood."""


class KvCache(Block):
    """Types of the K and the V cache."""

    k: CacheType = "f16"
    v: CacheType = "f16"


class Batch(Block):
    """Tokens per batch."""

    logical: Annotated[Positive, Field(description="`--batch-size`")] = 2048
    physical: Annotated[Positive, Field(description="`--ubatch-size`")] = 512


class LlamaCppDeployment(Deployment):
    """A deployment on llama.cpp."""

    context: Annotated[Positive, Field(description="tokens of context, over all slots")] = 4096
    slots: Annotated[Positive, Field(description="requests at a time; each has context / slots tokens")] = 1
    kv_cache: Annotated[CacheType | KvCache, Field(description="type of the KV cache, or `{k: …, v: …}`")] = "f16"
    batch: Batch = Batch()
    flash_attention: Annotated[Switch, Field(description="`auto` leaves it to the build")] = "auto"
    gpu_layers: Annotated[int | Literal["all"], Field(description="layers on the card")] = "all"
    threads: Annotated[Positive | None, Field(description="CPU threads")] = None
    chat_template: Annotated[str | None, Field(description="name of a built-in template; default: the model's own")] = (
        None
    )
    cache_reuse: Annotated[int, Field(description="smallest chunk of a prompt to reuse, 0 for none", ge=0)] = 0
    unified_kv: Annotated[bool, Field(description="one KV cache shared by all slots")] = False
    swa_full: Annotated[bool, Field(description="full-size cache for sliding-window layers")] = False
    mlock: Annotated[bool, Field(description="keep the weights in RAM")] = False
    mmap: bool = True
    pooling: Annotated[Literal["none", "mean", "cls", "last", "rank"] | None, Field(description="of embeddings")] = None
    moe_on_cpu: Annotated[int, Field(description="layers whose experts stay on the CPU", ge=0)] = 0
    split: Annotated[Literal["layer", "row", "none"], Field(description="how several cards share the model")] = "layer"
    tensor_split: Annotated[tuple[float, ...], Field(description="share of each card")] = ()
    reasoning: Annotated[Literal["auto", "none", "deepseek"], Field(description="how thoughts are returned")] = "auto"

    @property
    def kv_types(self) -> tuple[str, str]:
        """Types of the K and the V cache."""
        return (
            (self.kv_cache.k, self.kv_cache.v) if isinstance(self.kv_cache, KvCache) else (self.kv_cache, self.kv_cache)
        )

    @property
    def layers(self) -> int:
        """``--gpu-layers`` as a number."""
        return 999 if self.gpu_layers == "all" else self.gpu_layers


class LlamaCpp(Unlimited):
    """The engine."""

    name = "llama.cpp"
    spec = LlamaCppDeployment
    measures_free_memory = False

    def check(self, spec: LlamaCppDeployment, models: Sequence[PlacedModel]) -> Iterable[Diagnostic]:
        """Yield what the schema cannot see."""
        yield from needs_model(models, self.name, "gguf")
        if models and models[0].file is None:
            yield Diagnostic(
                code="LAB065",
                summary=f"llama.cpp reads GGUF files, and model `{models[0].name}` is `{models[0].source}`",
                path=("model",),
                hint="give the model a `gguf:` source, or choose an engine that reads it",
            )
        if spec.context < spec.slots:
            yield Diagnostic(
                code="LAB025",
                summary=f"{spec.slots} slots cannot share a context of {spec.context} tokens",
                path=("slots",),
                hint="each slot gets context / slots tokens: raise `context` or lower `slots`",
            )

    def traits(self, spec: LlamaCppDeployment) -> Traits:
        """Return the settings that depend on card and build."""
        return Traits(kv_cache=spec.kv_types, flash_attention=spec.flash_attention)

    def footprint(
        self, spec: LlamaCppDeployment, models: Sequence[PlacedModel], gpus: Sequence[PlacedGpu], version: str
    ) -> Footprint | None:
        """Return the computed footprint, or the declared one."""
        stated = declared(spec, len(gpus))
        if stated is not None or not models or models[0].gguf is None:
            return stated
        from labctl.vram import llama_cpp  # noqa: PLC0415 - the memory model is heavy; most commands need one engine's

        k, v = spec.kv_types
        settings = llama_cpp.Settings(
            context=spec.context,
            slots=spec.slots,
            kv_cache_k=k,
            kv_cache_v=v,
            flash_attention=spec.flash_attention != "off",
            batch=spec.batch.logical,
            ubatch=spec.batch.physical,
            gpu_layers=spec.layers if gpus else 0,
            unified_kv=spec.unified_kv,
            swa_full=spec.swa_full,
            embeddings=spec.task in {Task.EMBED, Task.RERANK},
            cpu_moe_layers=spec.moe_on_cpu,
            devices=max(1, len(gpus)),
            split_mode=spec.split,
            tensor_split=spec.tensor_split,
            projector=models[0].projector_facts,
            build=version or "b11549",
        )
        return llama_cpp.estimate(models[0].gguf, settings)

    def workload(self, server: Server, spec: LlamaCppDeployment, template: Template) -> Workload:
        """Return the container and the native form of one llama-server."""
        health = Health(path="/health", start_period=spec.startup or 120)
        forms: tuple[Container | Native, ...] = (
            self._container(server, spec, template),
            self._native(server, spec),
        )
        if server.runtime.image is None:
            forms = forms[1:]
        workload = assemble(
            server,
            spec,
            forms,
            listen=LISTEN if server.runtime.image else server.port,
            health=health,
            metrics=Metrics(kind="llama.cpp"),
            product="llama.cpp",
            what=f"llama.cpp {server.runtime.version} serving {server.models[0].name}",
        )
        return replace(workload, child=self._child(server, spec))

    def _container(self, server: Server, spec: LlamaCppDeployment, template: Template) -> Container:
        build = image_build(spec.build, server.runtime, template) if spec.build else None
        image = "labctl/llama.cpp:" + build.name.removeprefix("llama.cpp-") if build else (server.runtime.image or "")
        return Container(
            image=image,
            chosen=spec.image is not None,
            build=build,
            args=arguments(server, spec, host="0.0.0.0", port=LISTEN, folder=MODELS_IN_CONTAINER),  # noqa: S104
            mounts=models_mount(server),
            probe=server.runtime.probe,
            locked_memory=spec.mlock,
        )

    def _native(self, server: Server, spec: LlamaCppDeployment) -> Native:
        program, *first = PROGRAMS.get(server.runtime.flavour, ("llama-server",))
        return Native(
            program=program,
            args=(
                *first,
                *arguments(server, spec, host=server.bind, port=server.port, folder=server.host.places.models),
            ),
            locked_memory=spec.mlock,
        )

    def _child(self, server: Server, spec: LlamaCppDeployment) -> Child | None:
        """Return the server as another's child. An image that is built for it alone holds no other program."""
        if spec.build is not None:
            return None
        program, *first = PROGRAMS.get(server.runtime.flavour, ("llama-server",))
        args = arguments(server, spec, host="127.0.0.1", port=server.port, folder="{models}")
        cards = CARD_NAMES.get(server.runtime.accelerator) if server.gpus and server.runtime.accelerator else None
        own = ("--device", f"{{cards:{cards}}}") if cards else ()
        return Child(program=program, args=(*first, *own, *args), port=server.port)

    def endpoints(self, server: Server, spec: LlamaCppDeployment) -> tuple[Endpoint, ...]:
        """Return the one endpoint; the server reports its first public name (``--alias``)."""
        serves = served_names(server, spec)
        return (endpoint(server, spec, ApiFlavour.OPENAI, serves[0], serves, slots=spec.slots),)


def arguments(server: Server, spec: LlamaCppDeployment, *, host: str, port: int, folder: str) -> tuple[str, ...]:
    """Return llama-server's arguments; every size is explicit, so that the server never resizes itself.

    ``folder`` is the models folder as the server sees it.

    Source of the flags: llama.cpp, common/arg.cpp, b11549.
    """
    model = server.models[0]
    path = f"{folder}/{model.file or ''}"
    args = ["--model", path, "--alias", served_names(server, spec)[0], "--host", host, "--port", str(port)]
    args += ["--ctx-size", str(spec.context), "--parallel", str(spec.slots)]
    args += ["--batch-size", str(spec.batch.logical), "--ubatch-size", str(spec.batch.physical)]
    args += ["--gpu-layers", str(spec.layers if server.gpus else 0), "--fit", "off", "--metrics", "--no-webui"]
    args += _cache_arguments(spec) + _model_arguments(server, spec, folder) + _card_arguments(server, spec)
    return (*args, *spec.args)


def _cache_arguments(spec: LlamaCppDeployment) -> list[str]:
    k, v = spec.kv_types
    args = ["--flash-attn", spec.flash_attention, "--cache-type-k", k, "--cache-type-v", v]
    args += ["--kv-unified"] if spec.unified_kv else []
    args += ["--swa-full"] if spec.swa_full else []
    return args + (["--cache-reuse", str(spec.cache_reuse)] if spec.cache_reuse else [])


def _model_arguments(server: Server, spec: LlamaCppDeployment, folder: str) -> list[str]:
    model = server.models[0]
    args: list[str] = []
    if model.projector:
        args += ["--mmproj", f"{folder}/{model.projector}"]
    if spec.task is Task.EMBED:
        args += ["--embeddings"]
    if spec.task is Task.RERANK:
        args += ["--reranking"]
    if spec.pooling:
        args += ["--pooling", spec.pooling]
    template = spec.chat_template or model.chat_template
    if spec.task is Task.CHAT:
        args += ["--jinja"] + (["--chat-template", template] if template else [])
        args += ["--reasoning-format", spec.reasoning] if spec.reasoning != "auto" else []
    return args


def _card_arguments(server: Server, spec: LlamaCppDeployment) -> list[str]:
    args: list[str] = []
    if spec.threads:
        args += ["--threads", str(spec.threads)]
    if spec.mlock:
        args += ["--mlock"]
    if not spec.mmap:
        args += ["--no-mmap"]
    if spec.moe_on_cpu:
        args += ["--n-cpu-moe", str(spec.moe_on_cpu)]
    if len(server.gpus) > 1:
        args += ["--split-mode", spec.split]
        args += ["--tensor-split", ",".join(f"{s:g}" for s in spec.tensor_split)] if spec.tensor_split else []
    return args


engine = LlamaCpp()
