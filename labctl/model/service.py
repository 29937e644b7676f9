"""Services: what every block under ``services`` has in common. A service's own keys are fields of its subclass."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from labctl.model.base import Block, Name, PortNumber, Size
from labctl.model.fields import ImageName, OneOrMany, conflict


class ServiceBlock(Block):
    """One service beside the models: a database, a dashboard, a watchdog."""

    kind: Annotated[Name | None, Field(description="which service it is; default: its key")] = None
    host: Annotated[Name | None, Field(description="where it runs")] = None
    hosts: Annotated[OneOrMany[Name], Field(description="where it runs, when on several hosts")] = ()
    port: Annotated[
        PortNumber | None, Field(description="host port, for services that people or other hosts reach")
    ] = None
    bind: Annotated[str | None, Field(description="host address to serve at; default: the narrowest that works")] = None
    image: Annotated[ImageName | None, Field(description="container image in place of the one labctl would choose")] = (
        None
    )
    memory_limit: Size | None = None
    extra: Annotated[dict[str, dict[str, Any]], Field(description="per target, merged last into what it renders")] = {}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.host and self.hosts:
            conflict("both `host` and `hosts` are given", "keep one of them")
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """The names of its hosts."""
        return (self.host,) if self.host else self.hosts
