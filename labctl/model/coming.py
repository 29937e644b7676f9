"""Blocks of gateways and services that this version knows by name only: their own keys are accepted as they are."""

from __future__ import annotations

from pydantic import ConfigDict

from labctl.model.gateway import GatewayBlock
from labctl.model.service import ServiceBlock


class ComingGateway(GatewayBlock):
    """A gateway that a later version will render."""

    model_config = ConfigDict(extra="allow")


class ComingService(ServiceBlock):
    """A service that a later version will render."""

    model_config = ConfigDict(extra="allow")
