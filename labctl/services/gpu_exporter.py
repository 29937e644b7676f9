"""Figures of the cards of a host: memory, load, temperature, power.

Three programs, each with its own names; ``labctl.services.rules`` makes them one. NVIDIA cards of every age are read by
nvidia_gpu_exporter, which asks nvidia-smi (github.com/utkuozdemir/nvidia_gpu_exporter); data centre cards also by DCGM
(docs.nvidia.com/datacenter/dcgm, DCGM-Exporter); AMD's by its Device Metrics Exporter (github.com/ROCm).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.emit import json
from labctl.placed import PlacedHost
from labctl.services import Part, ServiceAsk
from labctl.services.common import Environment, Plain, container, listening
from labctl.workload import Accelerator, ConfigFile, Container, GpuClaim, Health, Metrics, Native, Workload

NVIDIA_SMI: Final = "nvidia-smi"
DCGM: Final = "dcgm"
AMD: Final = "amd-gpu"
KINDS: Final = (NVIDIA_SMI, DCGM, AMD)
"""What its figures are called in ``Metrics.kind``."""

LISTEN: Final = 9835
"""The port of nvidia_gpu_exporter, to which the other two are moved, so that one service has one port."""
_LISTENING: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({DCGM: {"DCGM_EXPORTER_LISTEN": f":{LISTEN}"}})
PRODUCTS: Final = {NVIDIA_SMI: "prometheus-nvidia-gpu-exporter", DCGM: "dcgm-exporter", AMD: "device-metrics-exporter"}
"""What ``Workload.product`` they are."""
_IMAGES: Final = {NVIDIA_SMI: "gpu-exporter", DCGM: "dcgm-exporter", AMD: "amd-gpu-exporter"}


class GpuExporterBlock(Environment):
    """An exporter of GPU figures."""

    reads: Annotated[
        Literal["nvidia-smi", "dcgm"], Field(description="how NVIDIA cards are read; `dcgm` wants data centre cards")
    ] = "nvidia-smi"


class GpuExporter(Plain):
    """The service."""

    name = "gpu-exporter"
    options = GpuExporterBlock
    watched = True
    ports = MappingProxyType({"http": LISTEN})

    def check(self, name: str, options: GpuExporterBlock) -> Iterable[Diagnostic]:  # noqa: ARG002
        """Nothing is wrong with many hosts."""
        return ()

    def parts(self, name: str, options: GpuExporterBlock, hosts: Mapping[str, PlacedHost]) -> Iterable[Part]:
        """Return one per host; called after its host wherever there may be several."""
        for host in options.places or cards(hosts):
            yield Part(name=f"{name}-{host}", kind=self.name, host=host, options=options, origin=("services", name))

    def image(self, options: GpuExporterBlock, host: PlacedHost) -> str:
        """Return the exporter for the host's cards."""
        return _IMAGES[source(options, host)]

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the one exporter; it sees every card and takes none."""
        options: GpuExporterBlock = ask.options
        kind = source(options, ask.host)
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=_forms(ask, kind),
            product=PRODUCTS[kind],
            env={**_LISTENING.get(kind, {}), **options.extra_env},
            files=_files(kind),
            ports=tuple(ask.ports.values()),
            gpu=_claim(ask.host, kind),
            health=Health(path="/metrics", start_period=60),
            memory_limit=options.memory_limit,
            metrics=Metrics(kind=kind),
            origin=ask.origin,
            extra=options.extra,
            description=f"GPU figures ({kind})",
        )
        return (workload,)


def cards(hosts: Mapping[str, PlacedHost]) -> tuple[str, ...]:
    """Return the hosts with cards that can be read, by name."""
    return tuple(sorted(name for name, host in hosts.items() if any(_readable(host))))


def source(options: GpuExporterBlock, host: PlacedHost) -> str:
    """Return which figures a host's cards have."""
    nvidia = any(g.vendor == "nvidia" for g in host.gpus)
    return options.reads if nvidia or not host.gpus else AMD


def _readable(host: PlacedHost) -> Iterable[bool]:
    """Yield True for each card with an exporter; a Jetson has no nvidia-smi, and Intel's cards have none here."""
    return (g.vendor == "amd" or (g.vendor == "nvidia" and not g.unified) for g in host.gpus)


def _files(kind: str) -> tuple[ConfigFile, ...]:
    """Return the configuration of AMD's exporter (``ServerPort`` in its documentation: 5000 unless said)."""
    if kind != AMD:
        return ()
    return (
        ConfigFile(name="config.json", content=json.dump({"ServerPort": LISTEN}), target="/etc/metrics/config.json"),
    )


def _forms(ask: ServiceAsk, kind: str) -> tuple[Container | Native, ...]:
    form = container(ask)
    if kind != NVIDIA_SMI:
        return (form,)
    address = f"--web.listen-address={listening(ask.ports['http'])}"
    return (form, Native(program="nvidia_gpu_exporter", args=(address,)))


def _claim(host: PlacedHost, kind: str) -> GpuClaim | None:
    wanted = "amd" if kind == AMD else "nvidia"
    some = tuple(g for g in host.gpus if g.vendor == wanted)
    if not some:
        return None
    return replace(host.claim(some, Accelerator.ROCM if kind == AMD else Accelerator.CUDA), observes=True)


service = GpuExporter()
