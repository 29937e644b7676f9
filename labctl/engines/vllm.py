"""vLLM: safetensors models on cards of compute capability 7.5 and up, within a budget in GB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.engines import Template, Traits
from labctl.engines.common import assemble, declared, endpoint, needs_model, served_names
from labctl.model.base import Positive, SecretName, Size
from labctl.model.deployment import Deployment
from labctl.placed import PlacedGpu, PlacedModel, Server
from labctl.quantity import GIB, format_size
from labctl.vram.footprint import DeviceBytes, Footprint, Step
from labctl.workload import (
    ApiFlavour,
    Container,
    Endpoint,
    EnvValue,
    Health,
    Metrics,
    Mount,
    SecretRef,
    SecretText,
    Task,
    Workload,
)

if TYPE_CHECKING:
    from labctl.vram.vllm import Settings as MemorySettings

LISTEN: Final = 8000
CACHE: Final = "/root/.cache/huggingface"

Dtype = Literal["auto", "half", "bfloat16", "float32"]
CacheType = Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]

MIN_CONTEXT: Final = 256
"""Tokens: a shorter context is not worth naming as a remedy."""

POOLING: Final = frozenset({Task.EMBED, Task.RERANK})


class VllmDeployment(Deployment):
    """A deployment on vLLM."""

    context: Annotated[Positive | None, Field(description="longest request in tokens; default: the model's own")] = None
    sequences: Annotated[Positive | None, Field(description="requests at a time (`--max-num-seqs`)")] = None
    batched_tokens: Annotated[Positive | None, Field(description="tokens per step (`--max-num-batched-tokens`)")] = None
    dtype: Annotated[
        Literal["auto", "half", "bfloat16", "float32"], Field(description="type of weights and activations")
    ] = "auto"
    quantization: Annotated[str | None, Field(description="e.g. `fp8`, `awq`, `gptq`, `bitsandbytes`")] = None
    kv_cache: Annotated[CacheType, Field(description="type of the KV cache")] = "auto"
    eager: Annotated[bool, Field(description="no CUDA graphs: slower, less memory")] = False
    images_per_prompt: Annotated[int | None, Field(description="largest number of images in a request", ge=0)] = None
    attention_backend: Annotated[str | None, Field(description="e.g. `FLASHINFER`; default: by card")] = None
    prefix_caching: bool = True
    trust_remote_code: bool = False
    tool_parser: Annotated[str | None, Field(description="parser of tool calls")] = None
    reasoning_parser: Annotated[str | None, Field(description="parser of thoughts")] = None
    shared_memory: Annotated[Size, Field(description="size of /dev/shm")] = 4 * GIB
    token: Annotated[SecretName | None, Field(description="secret with the Hub's token, for gated models")] = None


class Vllm:
    """The engine."""

    name = "vllm"
    spec = VllmDeployment
    measures_free_memory = True

    def check(self, spec: VllmDeployment, models: Sequence[PlacedModel]) -> Iterable[Diagnostic]:
        """Yield what the schema cannot see."""
        yield from needs_model(models, "vLLM", "hf")
        if models and models[0].kind != "hf":
            yield Diagnostic(
                code="LAB065",
                summary=f"vLLM reads Hugging Face repositories, and model `{models[0].name}` is `{models[0].source}`",
                path=("model",),
                hint="give the model an `hf:` source, or use engine `llama.cpp` for GGUF files",
            )
        if spec.vram is None and (not spec.on or any(p.gpus != "none" for p in spec.on)):
            yield Diagnostic(
                code="LAB064",
                summary="vLLM fills whatever it is given, so it needs a budget",
                path=(),
                hint="add `vram: 15 GB`: labctl turns it into --gpu-memory-utilization",
            )

    def traits(self, spec: VllmDeployment) -> Traits:
        """Return the settings that depend on card and build."""
        return Traits(
            dtype=None if spec.dtype == "auto" else spec.dtype,
            quantization=spec.quantization,
            attention_backend=spec.attention_backend,
            flash_attention="auto",
        )

    def footprint(
        self, spec: VllmDeployment, models: Sequence[PlacedModel], gpus: Sequence[PlacedGpu], version: str
    ) -> Footprint | None:
        """Return what it takes: its whole budget, or the least that starts; the declared budget when that is all."""
        stated = declared(spec, len(gpus))
        if stated is not None or not gpus:
            return stated
        if models and models[0].hf is not None:
            from labctl.vram import vllm  # noqa: PLC0415 - the memory model is only needed for labs with vLLM

            found = vllm.estimate(models[0].hf, _memory_settings(spec, models[0], gpus, version))
            return replace(found, process=vllm.CONTEXT)
        return _whole_budget(spec.vram, len(gpus)) if isinstance(spec.vram, int) else None

    def limits(
        self, spec: VllmDeployment, models: Sequence[PlacedModel], gpus: Sequence[PlacedGpu], version: str
    ) -> Iterable[Diagnostic]:
        """Yield a problem when the budget cannot hold one sequence of full length: vLLM would refuse to start."""
        if not isinstance(spec.vram, int) or not gpus or not models or models[0].hf is None:
            return
        from labctl.vram import vllm  # noqa: PLC0415 - the memory model is only needed for labs with vLLM

        plan = vllm.plan_budget(models[0].hf, _memory_settings(spec, models[0], gpus, version))
        if not plan.starts:
            lines = [f"{s.label:<26} {format_size(s.bytes):>9}  {s.formula}" for s in plan.steps]
            room = f"`context: {plan.longest_sequence}`, or " if plan.longest_sequence >= MIN_CONTEXT else ""
            yield Diagnostic(
                code="LAB143",
                summary=f"vLLM cannot start in {format_size(spec.vram)}: it needs {format_size(plan.smallest_bytes)}",
                detail="\n".join(lines),
                path=("vram",),
                hint=f"give it {room}`vram: {-(-plan.smallest_bytes // 2**20)} MiB`",
            )

    def workload(self, server: Server, spec: VllmDeployment, template: Template) -> Workload:  # noqa: ARG002
        """Return the container form; vLLM is not run natively."""
        container = Container(
            image=server.runtime.image or "",
            args=arguments(server, spec),
            mounts=(Mount(source="huggingface", target=CACHE, volume=True),),
            probe=server.runtime.probe,
            shm_size=spec.shared_memory,
        )
        return assemble(
            server,
            spec,
            (container,),
            listen=LISTEN,
            health=Health(path="/health", start_period=spec.startup or 300),
            env=_environment(spec),
            metrics=Metrics(kind="vllm"),
            product="vllm",
            what=f"vLLM {server.runtime.version} serving {server.models[0].name}",
        )

    def endpoints(self, server: Server, spec: VllmDeployment) -> tuple[Endpoint, ...]:
        """Return the one endpoint; the server knows all its public names and reports the first."""
        serves = served_names(server, spec)
        return (endpoint(server, spec, ApiFlavour.VLLM, serves[0], serves, slots=spec.sequences),)


def _whole_budget(budget: int, gpus: int) -> Footprint:
    """Return the footprint of a model that nobody knows: its whole budget, and a process around it."""
    from labctl.vram import vllm  # noqa: PLC0415 - the memory model is only needed for labs with vLLM

    step = Step("budget", budget, "`vram:` in lab.yaml; vLLM fills its budget with KV cache", "lab.yaml")
    devices = (DeviceBytes(other=budget),) * gpus
    return Footprint(devices=devices, steps=(step,), process=vllm.CONTEXT, exact=False)


def _memory_settings(
    spec: VllmDeployment, model: PlacedModel, gpus: Sequence[PlacedGpu], version: str
) -> MemorySettings:
    from labctl.vram import vllm  # noqa: PLC0415 - the memory model is only needed for labs with vLLM

    name = spec.quantization or model.quantization or "none"
    return vllm.Settings(
        max_model_len=spec.context or 0,
        max_num_seqs=spec.sequences or 0,
        max_num_batched_tokens=spec.batched_tokens or 0,
        dtype=spec.dtype,
        quantization=vllm.Quantisation(name if name in set(vllm.Quantisation) else "none"),
        kv_cache_dtype=spec.kv_cache,
        tensor_parallel=len(gpus),
        eager=spec.eager,
        runner=vllm.Runner.POOLING if spec.task in POOLING else vllm.Runner.GENERATE,
        limit_mm={} if spec.images_per_prompt is None else {"image": spec.images_per_prompt, "video": 0},
        gpu_total_bytes=min(g.memory for g in gpus),
        budget_bytes=spec.vram if isinstance(spec.vram, int) else None,
        version=version,
    )


def _environment(spec: VllmDeployment) -> dict[str, EnvValue]:
    env: dict[str, EnvValue] = {"VLLM_NO_USAGE_STATS": "1"}
    if spec.token:
        env["HF_TOKEN"] = SecretText((SecretRef(spec.token),))
    return env


def utilization(budget: int, total: int) -> str:
    """Return ``--gpu-memory-utilization`` for a budget in bytes: a fraction of all memory, rounded down to 4 places.

    vLLM multiplies it with the device's total and refuses to start when less is free
    (vllm/v1/worker/utils.py, ``request_memory``).
    """
    return f"{budget * 10_000 // total / 10_000:.4f}"


def arguments(server: Server, spec: VllmDeployment) -> tuple[str, ...]:
    """Return the arguments of ``vllm serve`` (vllm/engine/arg_utils.py; `--task` is gone since 0.13)."""
    model = server.models[0]
    args: list[str] = ["--model", model.source, "--served-model-name", *served_names(server, spec)]
    args += ["--host", "0.0.0.0", "--port", str(LISTEN)]  # noqa: S104 - in the container
    if server.gpus and server.budget:
        budget = spec.vram if isinstance(spec.vram, int) else max(server.budget)
        args += ["--gpu-memory-utilization", utilization(budget, min(g.memory for g in server.gpus))]
    if len(server.gpus) > 1:
        args += ["--tensor-parallel-size", str(len(server.gpus))]
    if model.revision:
        args += ["--revision", model.revision]
    args += ["--runner", "pooling"] if spec.task in POOLING else []
    return (*args, *_settings(server, spec), *_switches(spec), *spec.args)


def _settings(server: Server, spec: VllmDeployment) -> list[str]:
    chosen = server.runtime.settings
    dtype = chosen.get("dtype") if spec.dtype == "auto" else spec.dtype
    options: dict[str, Any] = {
        "--max-model-len": spec.context,
        "--max-num-seqs": spec.sequences,
        "--max-num-batched-tokens": spec.batched_tokens,
        "--dtype": dtype,
        "--quantization": spec.quantization or server.models[0].quantization,
        "--kv-cache-dtype": None if spec.kv_cache == "auto" else spec.kv_cache,
        "--attention-backend": spec.attention_backend or chosen.get("attention_backend"),
        "--tool-call-parser": spec.tool_parser,
        "--reasoning-parser": spec.reasoning_parser,
    }
    if spec.images_per_prompt is not None:
        options["--limit-mm-per-prompt"] = f'{{"image":{spec.images_per_prompt},"video":0}}'
    return [text for flag, value in options.items() if value is not None for text in (flag, str(value))]


def _switches(spec: VllmDeployment) -> list[str]:
    switches = {
        "--enforce-eager": spec.eager,
        "--no-enable-prefix-caching": not spec.prefix_caching,
        "--trust-remote-code": spec.trust_remote_code,
        "--enable-auto-tool-choice": spec.tool_parser is not None,
    }
    return [flag for flag, on in switches.items() if on]


engine = Vllm()
