"""Gateways: what every ``gateway`` block has in common. A gateway's own keys are fields of its subclass."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from labctl.model.base import Block, Name, PortNumber, Size
from labctl.model.fields import ImageName


class GatewayBlock(Block):
    """The one endpoint in front of every model of the lab."""

    swaps: ClassVar[bool] = False
    """Whether it starts and stops servers as they are asked for."""
    parent: ClassVar[bool] = False
    """Whether it does so by running on-demand servers of its own host as its children, and nobody else runs them."""

    engine: Annotated[str, Field(description="the gateway program", examples=["litellm"])]
    host: Annotated[Name | None, Field(description="where it runs; may be left out in a lab of one host")] = None
    port: Annotated[PortNumber, Field(description="host port of the endpoint")] = 4000
    bind: Annotated[str | None, Field(description="host address to serve at; default: the narrowest that works")] = None
    image: Annotated[ImageName | None, Field(description="container image in place of the one labctl would choose")] = (
        None
    )
    memory_limit: Size | None = None
    extra: Annotated[dict[str, dict[str, Any]], Field(description="per target, merged last into what it renders")] = {}

    @property
    def swapper(self) -> GatewayBlock | None:
        """The gateway that swaps behind this one, on each host with on-demand servers; None for none."""
        return None
