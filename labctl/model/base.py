"""What every block of lab.yaml is made of: a strict base model and the field types with units."""

from __future__ import annotations

from typing import Annotated, Any, Final

from annotated_types import Ge
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from labctl.model import plugins
from labctl.quantity import DURATION, POWER, RATE, SIZE, Kind, QuantityError

ADDRESS_PATTERN: Final = r"^[^\s/:@]+$|^[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%\w+)?$"
"""A host name, an IPv4 or an IPv6 address; no port, no user, no URL."""
NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""A DNS label: names turn up in host names, units, compose services and Kubernetes objects."""

plugins.leave_out()


class Block(BaseModel):
    """A mapping of lab.yaml. Unknown keys are errors; values are not coerced across types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, defer_build=True)


def _quantity(kind: Kind, *, bare: bool) -> BeforeValidator:
    def parse(value: Any) -> int:
        if isinstance(value, str):
            return kind.parse(value)
        if bare and isinstance(value, int) and not isinstance(value, bool):
            return value
        message = f"`{value}` has no unit; write for example `{kind.example}`"
        raise QuantityError(message)

    return BeforeValidator(parse)


def _schema(kind: Kind, *, bare: bool) -> WithJsonSchema:
    text: dict[str, Any] = {"type": "string", "description": f"a {kind.name}", "examples": [kind.example]}
    return WithJsonSchema({"anyOf": [text, {"type": "integer"}]} if bare else text)


Size = Annotated[int, _quantity(SIZE, bare=False), _schema(SIZE, bare=False)]
"""Bytes inside, ``24 GiB`` in the file."""
Duration = Annotated[int, _quantity(DURATION, bare=False), _schema(DURATION, bare=False), Ge(1)]
"""Seconds inside, ``60 s`` in the file."""
Power = Annotated[int, _quantity(POWER, bare=False), _schema(POWER, bare=False)]
"""Watts inside, ``90 W`` in the file."""
Rate = Annotated[int, _quantity(RATE, bare=True), _schema(RATE, bare=True)]
"""Events per minute inside, ``45 rpm`` or a bare ``45`` in the file."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
PublicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$")]
"""A model name as clients write it: repository ids and tags are allowed."""
SecretName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(ge=1)]
