"""llama-swap (mostlygeek/llama-swap): swaps llama.cpp servers by combinations, which follow from the budgets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from labctl.diagnostics import Diagnostic
from labctl.emit import yaml
from labctl.gateways import WORKLOAD, GatewayAsk, parent
from labctl.gateways.llama_swap import check
from labctl.gateways.llama_swap.config import build, environment
from labctl.gateways.llama_swap.options import LlamaSwapBlock
from labctl.workload import (
    ConfigFile,
    Container,
    Endpoint,
    Health,
    ImageBuild,
    Metrics,
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
            files=(ConfigFile(name=_FILE, content=yaml.dump(build(ask)), target=_CONFIG),),
            ports=(Port(name="http", listen=LISTEN, published=ask.port, bind=ask.bind),),
            gpu=parent.claim(ask),
            health=Health(path="/health", start_period=30),
            memory_limit=options.memory_limit,
            models=parent.models(ask),
            public=("http",),
            metrics=Metrics(kind="llama-swap", keyed=bool(keys)),
            origin=("gateway",),
            extra=options.extra,
            description="llama-swap and the llama.cpp servers that it runs",
        )
        return (workload,)


def _forms(ask: GatewayAsk) -> tuple[Container | Native, ...]:
    native = Native(
        program="llama-swap",
        args=("--config", f"{{config:{_FILE}}}", "--listen", f"{_in_url(ask.bind)}:{ask.port}"),
        locked_memory=parent.locks_memory(ask),
    )
    if ask.children.servers and not parent.containers(ask):
        return (native,)
    return (_container(ask), native)


def _container(ask: GatewayAsk) -> Container:
    """Return the container: one that is built of llama-swap and the children's own llama.cpp, or a ready one."""
    images = [form.image for form in parent.containers(ask)]
    own = ask.options.image or (None if images else ask.image)
    dockerfile = _DOCKERFILE.format(swap=ask.image, servers=images[0] if images else "")
    return Container(
        image=own or f"labctl-{ask.lab}-llama-swap:latest",
        args=("--config", _CONFIG, "--listen", f":{LISTEN}"),
        entrypoint=("/app/llama-swap",) if own else None,
        mounts=parent.mounts(ask),
        probe=Probe.CURL,
        locked_memory=parent.locks_memory(ask),
        build=None if own else ImageBuild(name=WORKLOAD, files={"Dockerfile": dockerfile}),
    )


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


gateway = LlamaSwap()
"""The one that the registry finds."""
