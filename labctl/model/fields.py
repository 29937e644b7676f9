"""Field shapes and errors that several blocks share."""

from __future__ import annotations

import re
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BeforeValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

T = TypeVar("T")


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, tuple) else (value,)


class _ListSchema:
    """Tells editors that a single element is fine, too."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        return {"anyOf": [schema, schema["items"]]} if "items" in schema else schema


OneOrMany = Annotated[tuple[T, ...], BeforeValidator(_listed), _ListSchema()]
"""A list, or one element written without brackets."""

_GGUF = re.compile(r"(hf://[^/\s]+/[^/\s]+/\S+|https?://\S+|file:///\S+|[^:\s]+)\.gguf")


def _gguf(value: str) -> str:
    if not _GGUF.fullmatch(value) or {"", ".", ".."} & set(_folders(value)):
        summary = f"`{value}` is not the place of a GGUF file"
        raise FormatError(
            summary,
            "write `hf://org/repo/file.gguf`, `https://…/file.gguf`, a path, or a name in the host's models folder",
        )
    return value


def _folders(value: str) -> list[str]:
    """Return the parts of a source's path that it keeps in the models folder."""
    if value.startswith("hf://"):
        return value.removeprefix("hf://").split("/")
    return [] if "://" in value or value.startswith("/") else value.split("/")


def _folder(value: str) -> str:
    parts = [part for part in value.split("/") if part not in {"", "."}]
    if not value.startswith("/") or not parts or ".." in parts:
        summary = f"`{value}` is not a folder that can be used"
        raise FormatError(summary, "write an absolute path without `..`, for example `/srv/models`")
    return "/" + "/".join(parts)


def _image(value: str) -> str:
    name, _, tag = value.rpartition("/")[2].partition("@")[0].partition(":")
    if not name or any(c.isspace() for c in value):
        summary = f"`{value}` is not an image"
        raise FormatError(summary, "write `registry/name:tag`")
    if "@sha256:" not in value and tag in {"", "latest"}:
        summary = f"image `{value}` " + ("has no tag" if not tag else "is whatever `latest` is today")
        raise FormatError(summary, "pin it: give a version as its tag, or a digest")
    return value


class FormatError(ValueError):
    """A text has not the form it needs (LAB026)."""

    code = "LAB026"

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.hint = hint


class BlockError(ValueError):
    """A rule over several keys of one block is broken (LAB027)."""

    code = "LAB027"

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.hint = hint


GgufSource = Annotated[str, AfterValidator(_gguf)]
"""Where a GGUF file is."""
Folder = Annotated[str, AfterValidator(_folder)]
"""An absolute folder of a host, other than its root."""
ImageName = Annotated[str, AfterValidator(_image)]
"""A container image, pinned by a tag that says a version or by a digest."""


def conflict(summary: str, hint: str = "") -> NoReturn:
    """Raise the error of a rule over several keys, from inside a validator."""
    raise BlockError(summary, hint)
