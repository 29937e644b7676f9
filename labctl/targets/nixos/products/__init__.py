"""Programs that NixOS has a module for: what a workload of that product becomes, in the module's own words.

``PRODUCTS`` says by ``Workload.product`` where; None from an adapter is: not this one, run it by a form of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol, cast

from labctl.targets.nixos.run import Made, Run

PRODUCTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alertmanager": "monitoring:alertmanager",
        "grafana": "grafana:grafana",
        "labctl": "gateways:builtin",
        "litellm": "gateways:litellm",
        "llama.cpp": "engines:llama_cpp",
        "ollama": "engines:ollama",
        "open-webui": "pages:open_webui",
        "postgresql": "postgresql:postgresql",
        "prometheus": "monitoring:prometheus",
        "prometheus-nvidia-gpu-exporter": "monitoring:nvidia_gpu_exporter",
        "searxng": "pages:searxng",
    }
)


class Adapter(Protocol):
    """Turns a workload of one product into options."""

    def __call__(self, run: Run) -> Made | None:
        """Return what it becomes, None when the module cannot express it."""
        ...


def adapter(product: str) -> Adapter | None:
    """Return the adapter of a product, None when NixOS has no module for it."""
    place = PRODUCTS.get(product)
    if place is None:
        return None
    module, _, name = place.partition(":")
    return cast("Adapter", getattr(importlib.import_module(f"labctl.targets.nixos.products.{module}"), name))
