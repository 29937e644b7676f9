"""Blocks of services that this version knows by name only: their own keys are accepted as they are."""

from __future__ import annotations

from pydantic import ConfigDict

from labctl.model.service import ServiceBlock


class ComingService(ServiceBlock):
    """A service that a later version will render."""

    model_config = ConfigDict(extra="allow")
