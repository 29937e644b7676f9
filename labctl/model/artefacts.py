"""Models: where their weights come from."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from labctl.model.base import Block, Positive, PublicName, Size
from labctl.model.fields import GgufSource, conflict


class Tiny(Block):
    """A model of a few kilobytes that labctl writes itself, to try a lab without weights or a GPU."""

    says: Annotated[str | None, Field(description="answers every prompt with this sentence", min_length=1)] = None
    dimensions: Annotated[int | None, Field(description="embeds text in that many dimensions", ge=8, le=1024)] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.says is None) == (self.dimensions is None):
            conflict("a tiny model needs either `says` or `dimensions`", "keep one of them")
        return self


class Model(Block):
    """A model by its source: exactly one of ``gguf``, ``hf``, ``ollama`` and ``tiny``."""

    gguf: Annotated[
        GgufSource | None,
        Field(
            description="a GGUF file: `hf://org/repo/file.gguf`, a URL, a path, or a name in the host's models folder",
        ),
    ] = None
    hf: Annotated[
        str | None,
        Field(description="a Hugging Face repository", pattern=r"^[\w.-]+/[\w.-]+$", examples=["Qwen/Qwen3-4B"]),
    ] = None
    ollama: Annotated[PublicName | None, Field(description="a model of Ollama's library", examples=["llama3.1:8b"])] = (
        None
    )
    tiny: Tiny | None = None
    projector: Annotated[GgufSource | None, Field(description="GGUF file of the vision or audio projector")] = None
    revision: Annotated[str | None, Field(description="commit or tag of the repository")] = None
    chat_template: Annotated[str | None, Field(description="llama.cpp's name of a chat template")] = None
    quantization: Annotated[
        str | None, Field(description="how the weights are quantised, where the name does not say")
    ] = None
    size: Annotated[Size | None, Field(description="size of the weights")] = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    facts: Annotated[PublicName | None, Field(description="catalogue entry to take header facts from")] = None
    context: Annotated[Positive | None, Field(description="tokens it was trained for")] = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [k for k in ("gguf", "hf", "ollama", "tiny") if getattr(self, k) is not None]
        if len(given) != 1:
            what = "no source" if not given else "several sources: " + ", ".join(f"`{k}`" for k in given)
            conflict(f"the model has {what}", "give exactly one of `gguf`, `hf`, `ollama` and `tiny`")
        return self

    @property
    def kind(self) -> str:
        """The key of its source."""
        return next(k for k in ("gguf", "hf", "ollama", "tiny") if getattr(self, k) is not None)

    @property
    def source(self) -> str:
        """The source as text, for people and for the catalogue."""
        return self.gguf or self.hf or self.ollama or "tiny"
