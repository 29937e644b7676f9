"""llama-swap (mostlygeek/llama-swap): swaps llama.cpp servers by combinations, which follow from the budgets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from labctl.diagnostics import Diagnostic
from labctl.emit import yaml
from labctl.gateways import WORKLOAD, GatewayAsk
from labctl.gateways.llama_swap import check
from labctl.gateways.llama_swap.config import build, devices, environment
from labctl.gateways.llama_swap.options import LlamaSwapBlock
from labctl.workload import (
    ConfigFile,
    Container,
    Endpoint,
    GpuClaim,
    Health,
    ImageBuild,
    Metrics,
    Mount,
    Native,
    Port,
    Probe,
    Workload,
)

LISTEN: Final = 8080
"""Inside a container, where the images' own HEALTHCHECK asks (docker/llama-swap.Containerfile, v250)."""
_CONFIG: Final = "/etc/llama-swap/config.yaml"
_FILE: Final = "config.yaml"
_DOCKERFILE: Final = """FROM {swap} AS swap
FROM {servers}
COPY --from=swap /app/llama-swap /usr/local/bin/llama-swap
ENV PATH=/app:$PATH
ENTRYPOINT ["/usr/local/bin/llama-swap"]
"""
"""llama-swap beside the very llama.cpp that the compatibility gate chose; both keep their programs in /app."""


class LlamaSwap:
    """The gateway."""

    name = "llama-swap"
    options = LlamaSwapBlock
    calls: tuple[str, ...] = ()

    def check(
        self, options: LlamaSwapBlock, endpoints: Iterable[Endpoint], databases: Collection[str]
    ) -> Iterable[Diagnostic]:
        """Return what the schema cannot see; it needs no database."""
        del databases
        return check.problems(options, tuple(endpoints))

    def database(self, options: LlamaSwapBlock) -> None:
        """It keeps nothing."""

    def master_key(self, options: LlamaSwapBlock) -> str | None:
        """Return the name of the key's secret, None when nobody is asked for one."""
        return options.keys.master

    def objections(self, ask: GatewayAsk) -> Iterable[Diagnostic]:
        """Return what llama-swap cannot run, and pins and budgets that it cannot be told."""
        return check.objections(ask)

    def workloads(self, ask: GatewayAsk) -> tuple[Workload, ...]:
        """Return llama-swap, which has the cards and the models of all its children."""
        options: LlamaSwapBlock = ask.options
        keys = environment(ask)
        workload = Workload(
            name=WORKLOAD,
            host=ask.host.name,
            forms=_forms(ask),
            env=keys,
            files=(ConfigFile(name=_FILE, content=yaml.dump(build(ask, cards=_cards(ask))), target=_CONFIG),),
            ports=(Port(name="http", listen=LISTEN, published=ask.port, bind=ask.bind),),
            gpu=_claim(ask),
            health=Health(path="/health", start_period=30),
            memory_limit=options.memory_limit,
            models=tuple(dict.fromkeys(m for server in ask.children.servers.values() for m in server.models)),
            public=("http",),
            metrics=Metrics(kind="llama-swap", keyed=bool(keys)),
            origin=("gateway",),
            extra=options.extra,
            description="llama-swap and the llama.cpp servers that it runs",
        )
        return (workload,)


def _claim(ask: GatewayAsk) -> GpuClaim | None:
    """Return a claim on all cards that its children use."""
    claims = [server.gpu for server in ask.children.servers.values() if server.gpu]
    if not claims:
        return None
    found = {device.index: device for claim in claims for device in claim.devices}
    return replace(claims[0], devices=tuple(found[index] for index in sorted(found)), budget=())


def _cards(ask: GatewayAsk) -> Mapping[int, int]:
    return {index: place for place, index in enumerate(devices(ask.children.servers.values()))}


def _forms(ask: GatewayAsk) -> tuple[Container | Native, ...]:
    locked = any(form.locked_memory for server in ask.children.servers.values() for form in server.forms)
    native = Native(
        program="llama-swap",
        args=("--config", f"{{config:{_FILE}}}", "--listen", f"{_in_url(ask.bind)}:{ask.port}"),
        locked_memory=locked,
    )
    images = [f.image for server in ask.children.servers.values() for f in server.forms if isinstance(f, Container)]
    if not images and ask.children.servers:
        return (native,)
    return (_container(ask, images, locked=locked), native)


def _container(ask: GatewayAsk, images: list[str], *, locked: bool) -> Container:
    folder = ask.host.places.models
    own = ask.options.image or (None if images else ask.image)
    dockerfile = _DOCKERFILE.format(swap=ask.image, servers=images[0] if images else "")
    return Container(
        image=own or f"labctl-{ask.lab}-llama-swap:latest",
        args=("--config", _CONFIG, "--listen", f":{LISTEN}"),
        entrypoint=("/app/llama-swap",) if own else None,
        # where it is on the host, so that one file is right for programs and containers
        mounts=(Mount(source=folder, target=folder, read_only=True),) if images else (),
        probe=Probe.CURL,
        locked_memory=locked,
        build=None if own else ImageBuild(name=WORKLOAD, files={"Dockerfile": dockerfile}),
    )


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


gateway = LlamaSwap()
"""The one that the registry finds."""
