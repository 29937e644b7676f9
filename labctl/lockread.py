"""Reading a model for the lock: headers, sizes and digests, wherever its files are. I/O lives here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from labctl.lockfile import Locked, key
from labctl.model.artefacts import Model
from labctl.resolve.models import FileFacts, Known, is_fetched, parts, pinned
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.sources import Access, read_gguf, read_hf, resolve

_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 30.0
_HEX_DIGITS: Final = 64
"""Of a SHA-256: shorter entity tags are something else."""

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
