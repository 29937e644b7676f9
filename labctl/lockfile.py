"""``lab.lock.yaml``: what the models' own files say, kept so that plans and budgets are exact and need no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from labctl.diagnostics import Diagnostic, DocPath, LabctlError, Severity
from labctl.emit import yaml as emit
from labctl.model.artefacts import Model
from labctl.resolve.models import FileFacts, Known, is_fetched, parts, pinned
from labctl.vram.facts import GgufFacts, HfFacts
from labctl.vram.metadata.codec import facts_from_json, facts_to_json, slim
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.sources import Access, read_gguf, read_hf, resolve

NAME: Final = "lab.lock.yaml"
VERSION: Final = 1
HEADER: Final = "made by `labctl lock`: commit it beside lab.yaml"
_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 30.0
_HEX_DIGITS: Final = 64
"""Of a SHA-256: shorter entity tags are something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A model's entry: it counts for this source only."""

    source: str
    known: Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The whole file."""

    models: Mapping[str, Locked] = field(default_factory=dict)

    def valid(self, models: Mapping[str, Model]) -> dict[str, Known]:
        """Return what is locked for models as they are now."""
        return {
            n: self.models[n].known for n, m in models.items() if n in self.models and self.models[n].source == key(m)
        }

    def stale(self, models: Mapping[str, Model]) -> Iterator[Diagnostic]:
        """Yield a warning for each entry that was made for another source."""
        for name, model in models.items():
            if name in self.models and self.models[name].source != key(model):
                path: DocPath = ("models", name)
                yield Diagnostic(
                    code="LAB144",
                    severity=Severity.WARNING,
                    summary=f"`{NAME}` has `{name}` from another source: its facts are not used",
                    path=path,
                    hint="run `labctl lock`",
                )


def key(model: Model) -> str:
    """Return what an entry is about: every source of the model, with its revision."""
    return " ".join(s for s in (model.source, model.projector, model.revision and f"@{model.revision}") if s)


def read_lock(folder: Path) -> Lock:
    """Read the lock file of a lab's folder; an empty one when there is none. LabctlError when it is damaged."""
    path = folder / NAME
    try:
        value = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        return Lock(models={name: _entry(entry) for name, entry in value["models"].items()})
    except FileNotFoundError:
        return Lock()
    except (OSError, UnicodeDecodeError, YAMLError, MetadataError, KeyError, TypeError, AttributeError) as error:
        problem = Diagnostic(
            code="LAB145",
            summary=f"`{path}` cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            hint="make it anew with `labctl lock`",
        )
        raise LabctlError([problem]) from error


def _entry(value: Mapping[str, Any]) -> Locked:
    facts = facts_from_json(value["facts"]) if "facts" in value else None
    projector = facts_from_json(value["projector"]) if "projector" in value else None
    known = Known(
        gguf=facts if isinstance(facts, GgufFacts) else None,
        hf=facts if isinstance(facts, HfFacts) else None,
        projector=projector if isinstance(projector, GgufFacts) else None,
        files={s: FileFacts(f.get("size"), f.get("sha256")) for s, f in value.get("files", {}).items()},
    )
    return Locked(source=value["source"], known=known)


def write_lock(folder: Path, lock: Lock) -> None:
    """Write the lock file atomically; models in the order of their names."""
    models = {name: _value(lock.models[name]) for name in sorted(lock.models)}
    text = emit.dump({"version": VERSION, "models": models}, header=HEADER)
    temporary = folder / f".{NAME}.labctl"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / NAME)


def _value(locked: Locked) -> dict[str, Any]:
    known = locked.known
    facts = known.gguf or known.hf
    files = {s: {k: v for k, v in (("size", f.size), ("sha256", f.sha256)) if v} for s, f in known.files.items()}
    value: dict[str, Any] = {"source": locked.source}
    value |= {"files": files} if files else {}
    value |= {"facts": facts_to_json(slim(facts) if isinstance(facts, GgufFacts) else facts)} if facts else {}
    return value | ({"projector": facts_to_json(slim(known.projector))} if known.projector else {})


AccessOf = Callable[[str, str], Access | None]
"""Model's name and a bare file name or path → how to reach the file; None when no machine has it in reach."""


def lock_model(name: str, model: Model, access: Access, local: AccessOf) -> Locked:
    """Read a model's headers, sizes and digests wherever they are.

    Raises:
        MetadataError: in words.
    """
    if model.gguf is not None:

        def reach(source: str) -> Access:
            return _reach(name, source, access, local)

        files = {p: identify(p, model.revision, reach(p)) for p in _sources(model)}
        gguf = read_gguf(_location(model.gguf, model.revision), reach(model.gguf))
        projector = read_gguf(_location(model.projector, None), reach(model.projector)) if model.projector else None
        return Locked(source=key(model), known=Known(gguf=gguf, projector=projector, files=files))
    if model.hf is not None:
        revision = f"@{model.revision}" if model.revision else ""
        return Locked(source=key(model), known=Known(hf=read_hf(f"hf://{model.hf}{revision}", access)))
    raise MetadataError(summary="Ollama's library offers no header to read", hint="the built-in catalogue is used")


def _location(source: str, revision: str | None) -> str:
    """Return a source as the readers take it: files of this machine as paths."""
    return pinned(source, revision).removeprefix("file://")


def _sources(model: Model) -> list[str]:
    return [part for source in (model.gguf, model.projector) if source for part in parts(source)]


def _reach(name: str, source: str, access: Access, local: AccessOf) -> Access:
    if "://" in source and not source.startswith("file://"):
        return access
    found = local(name, source)
    if found is None:
        raise MetadataError(summary="the file is on a host that cannot be asked from here", where=source)
    return found


def identify(source: str, revision: str | None, access: Access) -> FileFacts:
    """Return a file's size and SHA-256: computed for a local file, as the Hub states them for its own.

    The Hub answers a download address with ``X-Linked-Size`` and, for files in its large-file storage,
    ``X-Linked-Etag``: the SHA-256 (huggingface_hub, ``file_download.py``, ``get_hf_file_metadata``).
    """
    if access.run is not None:
        size = access.run(f"stat -L -c %s -- '{source}'").strip()
        return FileFacts(int(size) if size.isdigit() else None)
    if not is_fetched(source) or source.startswith(("/", "file://")):
        return _local_file(Path(source.removeprefix("file://")))
    url = resolve(pinned(source, revision), access.hub)
    headers = {"Authorization": f"Bearer {access.token}"} if access.token and url.startswith(access.hub) else {}
    try:
        answer = httpx.head(url, headers=headers, timeout=_TIMEOUT, follow_redirects=False, trust_env=False)
    except httpx.HTTPError as error:
        raise MetadataError(summary=f"no answer: {error}", where=source) from error
    size = answer.headers.get("x-linked-size") or answer.headers.get("content-length")
    etag = answer.headers.get("x-linked-etag", "").strip('"')
    return FileFacts(
        int(size) if size and size.isdigit() else None, etag if len(etag) == hashlib.sha256().digest_size * 2 else None
    )


def _local_file(path: Path) -> FileFacts:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise MetadataError(summary=error.strerror or str(error), where=str(path)) from error
    return FileFacts(size, digest.hexdigest())
