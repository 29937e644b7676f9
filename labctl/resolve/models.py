"""Models on hosts: file names in the models folder, and what is known of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from labctl.artefact import File, ModelFile
from labctl.diagnostics import DocPath
from labctl.model.artefacts import Model
from labctl.placed import PlacedHost, PlacedModel
from labctl.vram.facts import GgufFacts, HfFacts
from labctl.vram.metadata.split import part_names


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file: bytes and SHA-256, None where the server did not say."""

    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a model's files without asking the network.

    Attributes:
        gguf/hf: header facts.
        projector: facts of the projector's file.
        exact: False when they were derived from the model's name rather than read from its header.
        files: source of each file (every part of a split one) → its size and digest, where locked.
        content: the file itself, for models that labctl writes.
    """

    gguf: GgufFacts | None = None
    hf: HfFacts | None = None
    projector: GgufFacts | None = None
    exact: bool = True
    files: Mapping[str, FileFacts] = field(default_factory=dict)
    content: bytes | None = None


class Knowledge(Protocol):
    """Where facts come from: the lock file, the built-in catalogue, labctl's own tiny models."""

    def of(self, name: str, model: Model) -> Known:
        """Return what is known of a model; an empty ``Known`` when nothing is."""
        ...


def is_fetched(source: str) -> bool:
    """Whether labctl fetches the file: a bare name is expected to be in the models folder already."""
    return "://" in source or source.startswith("/")


def file_name(source: str) -> str:
    """Return the name a source gets in the models folder: repositories keep theirs, so that names cannot clash."""
    if source.startswith("hf://"):
        org, repo, *rest = source.removeprefix("hf://").split("/")
        return "/".join((f"{org}--{repo}", *rest))
    return PurePosixPath(source).name if is_fetched(source) else source


def place_model(name: str, model: Model, known: Known) -> PlacedModel:
    """Return a model as an engine sees it."""
    tiny = f"{name}.gguf" if model.tiny is not None else None
    return PlacedModel(
        name=name,
        source=model.source,
        file=file_name(model.gguf) if model.gguf else tiny,
        projector=file_name(model.projector) if model.projector else None,
        gguf=known.gguf,
        hf=known.hf,
        projector_facts=known.projector,
        exact=known.exact,
        chat_template=model.chat_template,
        quantization=model.quantization,
        revision=model.revision,
    )


def model_artefacts(host: PlacedHost, name: str, model: Model, known: Known) -> tuple[ModelFile | File, ...]:
    """Return the files that have to be in a host's models folder for one model."""
    origin: DocPath = ("models", name)
    folder = host.places.in_tree(host.places.models)
    if known.content is not None:
        return (File(host=host.name, path=f"{folder}/{name}.gguf", content=known.content, origin=origin),)
    sources = [part for source in (model.gguf, model.projector) if source for part in parts(source)]
    return tuple(
        ModelFile(
            host=host.name,
            path=f"{folder}/{file_name(source)}",
            url=pinned(source, model.revision) if is_fetched(source) else "",
            size=known.files.get(source, NO_FACTS).size,
            sha256=known.files.get(source, NO_FACTS).sha256,
            origin=origin,
        )
        for source in sources
    )


NO_FACTS = FileFacts()


def parts(source: str) -> tuple[str, ...]:
    """Return the sources of all files of a model: the parts of a split one, or itself."""
    match = _SPLIT.search(source)
    return part_names(source, int(match[1])) if match else (source,)


_SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)


def pinned(source: str, revision: str | None) -> str:
    """Return the address of a source at a revision of its repository."""
    if source.startswith("/"):
        return f"file://{source}"
    return f"{source}@{revision}" if revision and source.startswith("hf://") else source
