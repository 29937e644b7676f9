"""Engines: each turns a deployment into workloads and a memory footprint. None of them knows a target.

An engine is one module with an object ``engine`` that satisfies ``Engine``, and one line in ``ENGINES``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Any, Final, Protocol, cast

from labctl.diagnostics import Diagnostic
from labctl.model.deployment import Deployment
from labctl.placed import PlacedGpu, PlacedModel, Server
from labctl.values import dataclass
from labctl.vram.footprint import Footprint
from labctl.workload import Endpoint, Workload

ENGINES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "llama.cpp": "labctl.engines.llama_cpp:engine",
        "vllm": "labctl.engines.vllm:engine",
        "ollama": "labctl.engines.ollama:engine",
        "container": "labctl.engines.container:engine",
        "command": "labctl.engines.command:engine",
    }
)

Template = Callable[[str], str]
"""Finds the text of a shipped or overridden template by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the compatibility gate has to know of a deployment's settings.

    Attributes:
        gated: False for engines that labctl knows no builds of (``container``, ``command``).
        kv_cache: types of the K and V cache.
        flash_attention: ``on``, ``off`` or ``auto``.
        dtype, quantization, attention_backend: as the engine spells them; None for its default.
        keys: trait → the key of lab.yaml it came from, where that differs.
    """

    gated: bool = True
    kv_cache: tuple[str, str] = ("f16", "f16")
    flash_attention: str = "auto"
    dtype: str | None = None
    quantization: str | None = None
    attention_backend: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """What an engine module offers."""

    name: str
    spec: type[Deployment]
    measures_free_memory: bool
    """It takes what is free when it starts, so nothing else may start or stop on its card meanwhile."""

    def check(self, spec: Any, models: Sequence[PlacedModel]) -> Iterable[Diagnostic]:
        """Return the problems of a block that its schema cannot see; paths are relative to the block."""
        ...

    def traits(self, spec: Any) -> Traits:
        """Return what the compatibility gate asks about."""
        ...

    def footprint(
        self, spec: Any, models: Sequence[PlacedModel], gpus: Sequence[PlacedGpu], version: str
    ) -> Footprint | None:
        """Return the memory of one server, None when it cannot be known and was not declared."""
        ...

    def limits(
        self, spec: Any, models: Sequence[PlacedModel], gpus: Sequence[PlacedGpu], version: str
    ) -> Iterable[Diagnostic]:
        """Return the problems that show once the cards are known; paths are relative to the block."""
        ...

    def workload(self, server: Server, spec: Any, template: Template) -> Workload:
        """Return what has to run for one server."""
        ...

    def endpoints(self, server: Server, spec: Any) -> tuple[Endpoint, ...]:
        """Return what a gateway may send requests to."""
        ...


def load(name: str) -> Engine:
    """Import the engine of that name; KeyError when there is none."""
    module, _, attribute = ENGINES[name].partition(":")
    return cast("Engine", getattr(importlib.import_module(module), attribute))
