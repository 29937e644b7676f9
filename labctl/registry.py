"""The axes by name: engines, services, targets and gateways, loaded when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache

from labctl import engines, gateways, services, targets
from labctl.model.coming import ComingService
from labctl.model.deployment import Deployment
from labctl.model.gateway import GatewayBlock
from labctl.model.service import ServiceBlock


class Registry:
    """Finds the members of every axis; what this version only knows by name counts as known and loads as None."""

    def names(self, axis: str) -> Iterable[str]:
        """Return the names on ``engines``, ``gateways``, ``services`` or ``targets``, those to come included."""
        module = importlib.import_module(f"labctl.{axis}")
        return (*getattr(module, axis.upper()), *getattr(module, "COMING", {}))

    def engine(self, name: str) -> type[Deployment] | None:
        """Return the block type of an engine."""
        return engines.load(name).spec if name in engines.ENGINES else None

    def gateway(self, name: str) -> type[GatewayBlock] | None:
        """Return the block type of a gateway."""
        return gateways.load(name).options if name in gateways.GATEWAYS else None

    def service(self, kind: str) -> type[ServiceBlock] | None:
        """Return the block type of a service."""
        if kind in services.SERVICES:
            return services.load(kind).options
        return ComingService if kind in services.COMING else None

    @cache  # noqa: B019 - the registry lives as long as the program
    def target(self, name: str) -> targets.Target | None:
        """Return a target, None when it is unknown or still to come."""
        return targets.load(name) if name in targets.TARGETS else None
