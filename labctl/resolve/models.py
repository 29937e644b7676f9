"""Models on hosts: file names in the models folder, and what is known of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import PurePosixPath
from typing import Final, Protocol

from labctl.artefact import File, ModelFile
from labctl.diagnostics import DocPath
from labctl.model.artefacts import Model
from labctl.placed import PlacedHost, PlacedModel
from labctl.values import dataclass
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
        kind=model.kind,
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


LADDER: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
"""Quantisations that most GGUF models are published in, large to small."""

_QUANTISATION = re.compile(r"(?<![A-Za-z0-9])(B?F16|F32|I?Q(\d)_[A-Z0-9_]+)(?=[.-])", re.IGNORECASE)


def smaller_quantisations(model: Model) -> Iterator[tuple[str, Model]]:
    """Yield the same model in each smaller quantisation, by name; none where the file does not name its own."""
    found = list(_QUANTISATION.finditer(model.gguf or ""))
    if not found:
        return
    last = found[-1]
    bits = int(last[2] or 16)
    lower = LADDER[LADDER.index(last[1].upper()) + 1 :] if last[1].upper() in LADDER else LADDER
    for name in lower:
        if int(name.lstrip("IQ")[0]) <= bits and name != last[1].upper():
            source = (model.gguf or "")[: last.start()] + name + (model.gguf or "")[last.end() :]
            yield name, model.model_copy(update={"gguf": source})


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
            url=pinned(source, revision_of(model, source)) if is_fetched(source) else "",
            size=_facts(model, source, known).size,
            sha256=_facts(model, source, known).sha256,
            origin=origin,
        )
        for source in sources
    )


def _facts(model: Model, source: str, known: Known) -> FileFacts:
    """Return a file's size and digest: as lab.yaml states them for a model of one file, else as locked."""
    locked = known.files.get(source, NO_FACTS)
    if source != model.gguf:
        return locked
    return FileFacts(model.size or locked.size, model.sha256 or locked.sha256)


def revision_of(model: Model, source: str) -> str | None:
    """Return the revision that one of a model's files is pinned to: it counts for the model's own repository."""
    own = (model.gguf or "").split("/")[:4]
    return model.revision if source.split("/")[:4] == own else None


NO_FACTS = FileFacts()


def parts(source: str) -> tuple[str, ...]:
    """Return the sources of all files of a model: the parts of a split one, or itself."""
    match = _SPLIT.search(source)
    return part_names(source, int(match[1])) if match else (source,)


_SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)


def pinned(source: str, revision: str | None) -> str:
    """Return the address of a source at a revision of its repository: ``hf://org/repo@revision/file``."""
    if source.startswith("/"):
        return f"file://{source}"
    if not revision or not source.startswith("hf://"):
        return source
    org, repo, file = source.removeprefix("hf://").split("/", 2)
    return f"hf://{org}/{repo}@{revision}/{file}"
