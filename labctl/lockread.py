"""Reading a model for the lock: headers, sizes and digests, wherever its files are. I/O lives here."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from labctl.lockfile import Locked, key
from labctl.model.artefacts import Model
from labctl.resolve.models import FileFacts, Known, parts, pinned, revision_of
from labctl.values import dataclass
from labctl.vram.facts import GgufFacts
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.sources import Access, read_gguf, read_hf, resolve

_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 30.0
_REDIRECTS: Final = 5
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
"""Other entity tags are something else."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file really is: a path or address, and how it is read there."""

    location: str
    access: Access


Find = Callable[[str], Place | None]
"""A path, or a bare name in a models folder → where the file is; None when no machine in reach has it."""


def lock_model(model: Model, access: Access, find: Find) -> Locked:
    """Read a model's headers, sizes and digests wherever they are.

    Raises:
        MetadataError: in words.
    """
    if model.gguf is not None:
        places = {part: _place(model, part, access, find) for part in _sources(model)}
        files = {part: identify(place) for part, place in places.items()}
        gguf = _header(places[parts(model.gguf)[0]])
        projector = _header(places[model.projector]) if model.projector else None
        return Locked(source=key(model), known=Known(gguf=gguf, projector=projector, files=files))
    if model.hf is not None:
        revision = f"@{model.revision}" if model.revision else ""
        return Locked(source=key(model), known=Known(hf=read_hf(f"hf://{model.hf}{revision}", access)))
    raise MetadataError(summary="Ollama's library offers no header to read", hint="the built-in catalogue is used")


def _sources(model: Model) -> list[str]:
    return [part for source in (model.gguf, model.projector) if source for part in parts(source)]


def _place(model: Model, source: str, access: Access, find: Find) -> Place:
    path = source.removeprefix("file://")
    if "://" in path:
        return Place(pinned(source, revision_of(model, source)), access)
    found = find(path)
    if found is None:
        raise MetadataError(summary="the file is on no machine that can be asked from here", where=source)
    return found


def _header(place: Place) -> GgufFacts:
    return read_gguf(place.location, place.access)


def identify(place: Place) -> FileFacts:
    """Return a file's size and SHA-256: computed for a local file, as the Hub states them for its own.

    The Hub answers a download address with ``X-Linked-Size`` and, for files in its large-file storage,
    ``X-Linked-Etag``: the SHA-256 (huggingface_hub, ``file_download.py``, ``get_hf_file_metadata``). Of a file on
    another machine only the size is asked for.
    """
    if place.access.run is not None:
        return FileFacts(_remote_size(place.location, place.access.run))
    if "://" not in place.location:
        return _local_file(Path(place.location))
    try:
        return _stated(place)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MetadataError(summary=f"no answer: {error}", where=_bare(place.location)) from error


def _remote_size(path: str, run: Callable[[str], bytes]) -> int | None:
    try:
        answer = run(f"stat -L -c %s -- {shlex.quote(path)}").strip()
    except OSError as error:
        raise MetadataError(summary=error.strerror or str(error), where=path) from error
    return int(answer) if answer.isdigit() else None


def _stated(place: Place) -> FileFacts:
    """Ask for what a server says of a file; nothing is known of one that it does not let us ask about."""
    answer = _answer(httpx.URL(resolve(place.location, place.access.hub)), place.access, _REDIRECTS)
    if answer.is_error:
        return FileFacts()
    size = answer.headers.get("x-linked-size") or answer.headers.get("content-length", "")
    tag = answer.headers.get("x-linked-etag", "").strip('"')
    return FileFacts(int(size) if size.isdigit() else None, tag if _SHA256.fullmatch(tag) else None)


def _answer(url: httpx.URL, access: Access, hops: int) -> httpx.Response:
    """Return the Hub's first answer, which is a redirect and has what is wanted; redirects of others are followed.

    The token goes to the Hub's own origin only.
    """
    hub = httpx.URL(access.hub)
    own = (url.scheme, url.host, url.port) == (hub.scheme, hub.host, hub.port)
    headers = {"Authorization": f"Bearer {access.token}"} if access.token and own else {}
    answer = httpx.head(url, headers=headers, timeout=_TIMEOUT, follow_redirects=False, trust_env=False)
    if not answer.is_redirect or "x-linked-size" in answer.headers:
        return answer
    if not hops:
        raise httpx.TooManyRedirects(str(_REDIRECTS), request=answer.request)
    return _answer(url.join(answer.headers["location"]), access, hops - 1)


def _bare(url: str) -> str:
    """Return an address without its query, which may hold a signature."""
    return url.partition("?")[0]


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
