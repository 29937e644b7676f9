"""Where model files are: this machine, an HTTP server, the Hugging Face Hub, another machine over SSH. I/O lives here.

Every way in ends in a ``ReadRange`` for the parsers. Nothing is read from the environment: tokens, the Hub's address
and the SSH connection are handed in.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import quote

import httpx

from labctl.values import dataclass
from labctl.vram.facts import GgufFacts, HfFacts, Tensor
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.gguf import parse_gguf
from labctl.vram.metadata.http import SMALL_FILE, TIMEOUT, HttpFile, Token, fetch_small
from labctl.vram.metadata.safetensors import INDEX, SINGLE, parse_safetensors, read_folder
from labctl.vram.metadata.split import join_parts, part_names, split_count
from labctl.vram.metadata.window import FIRST_CHUNK, ReadRange

HUB = "https://huggingface.co"
"""The default Hub; override by ``Access.hub`` (HF_ENDPOINT)."""

RunCommand = Callable[[str], bytes]
"""Runs one shell command on the other machine and returns its standard output; raises ``OSError`` when it fails."""

_HF = re.compile(
    r"^hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[^@?#]+))?$",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the readers may use.

    Attributes:
        hub: the Hub's address, e.g. from HF_ENDPOINT.
        token: the Hub's token, sent to the Hub's own origin only; empty for none.
        run: runs a command on the machine that holds the files; None reads local files.
        client: an HTTP client to share; by default one per call.
    """

    hub: str = HUB
    token: str = ""
    run: RunCommand | None = None
    client: httpx.Client | None = None

    def __repr__(self) -> str:
        return f"Access(hub={self.hub!r}, token={'***' if self.token else ''!r})"


class OpenFile(Protocol):
    """A ``ReadRange`` that may know its size, and is closed after use."""

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, when known."""

    def __call__(self, offset: int, length: int, /) -> bytes:
        """See ``ReadRange``."""


def read_gguf(location: str, access: Access | None = None) -> GgufFacts:
    """Read a GGUF model's facts, all parts of a split one.

    Args:
        location: a path, ``http(s)://…``, or ``hf://org/repo[@revision]/file.gguf``.
        access: tokens and connections.

    Raises:
        MetadataError: in words, with the location.
    """
    given = access or Access()
    first = _read_one(location, given)
    count = split_count(first)
    if count == 1:
        return first
    with _at(location):
        names = part_names(location, count)
        return join_parts([first if name == location else _read_one(name, given) for name in names])


def read_hf(location: str, access: Access | None = None) -> HfFacts:
    """Read a Hugging Face model folder's facts.

    Args:
        location: a folder's path, ``http(s)://…/folder`` or ``hf://org/repo[@revision]``.
        access: tokens and connections.

    Raises:
        MetadataError: in words, with the location.
    """
    given = access or Access()
    with _at(location), _client(given) as client:

        def small(name: str) -> bytes | None:
            return _small(_beside(location, name), given, client)

        def tensors(name: str) -> tuple[Tensor, ...]:
            file = _beside(location, name)
            with _at(file), _open(file, given, client) as read:
                return parse_safetensors(_primed(read), read.size)

        return read_folder(small, tensors)


def resolve(location: str, hub: str = HUB) -> str:
    """Turn ``hf://org/repo[@revision]/file`` into the Hub's download address; other locations stay as they are.

    Raises:
        MetadataError: it begins with ``hf://`` but is not of that form.
    """
    if not location.startswith("hf://"):
        return location
    match = _HF.match(location)
    if match is None or match["file"] is None or ".." in match["file"].split("/"):
        raise MetadataError(summary="this is not of the form hf://org/repo/file", where=location)
    revision = quote(match["revision"] or "main", safe="")
    return f"{hub.rstrip('/')}/{match['repo']}/resolve/{revision}/{quote(match['file'])}"


class LocalFile:
    """A ``ReadRange`` over a file of this machine."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size: int | None = os.fstat(self._descriptor).st_size

    def __call__(self, offset: int, length: int, /) -> bytes:
        """Return the bytes at ``offset``."""
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class CommandFile:
    """A ``ReadRange`` over a file of another machine, by ``tail | head`` through an injected command runner."""

    def __init__(self, path: str, run: RunCommand) -> None:
        self._path = shlex.quote(path)
        self._run = run
        answer = run(f"stat -L -c %s -- {self._path}").strip()
        if not answer.isdigit():
            raise MetadataError(summary=f"`stat` answered {answer[:80]!r} instead of a size", where=path)
        self.size: int | None = int(answer)

    def __call__(self, offset: int, length: int, /) -> bytes:
        """Return the bytes at ``offset``; one command on the other machine."""
        return self._run(f"tail -c +{offset + 1} -- {self._path} | head -c {length}")[:length]


def _read_one(location: str, access: Access) -> GgufFacts:
    with _at(location), _client(access) as client, _open(location, access, client) as read:
        return parse_gguf(_primed(read), read.size)


def _primed(read: OpenFile) -> ReadRange:
    """Fetch the first chunk, after which an HTTP file knows its size, and serve it from memory."""
    first = read(0, FIRST_CHUNK)

    def again(offset: int, length: int) -> bytes:
        return first[:length] if offset == 0 and length <= len(first) else read(offset, length)

    return again


@contextlib.contextmanager
def _open(location: str, access: Access, client: httpx.Client) -> Iterator[OpenFile]:
    address = resolve(location, access.hub)
    if address.startswith(("http://", "https://")):
        with HttpFile(address, client, Token(access.hub, access.token)) as remote:
            yield remote
    elif access.run is not None:
        yield CommandFile(location, access.run)
    else:
        with contextlib.closing(LocalFile(Path(location))) as local:
            yield local


def _small(location: str, access: Access, client: httpx.Client) -> bytes | None:
    address = resolve(location, access.hub)
    if address.startswith(("http://", "https://")):
        return fetch_small(address, client, Token(access.hub, access.token))
    try:
        with _open(location, access, client) as read:
            return read(0, SMALL_FILE)
    except FileNotFoundError:
        return None


def _beside(folder: str, name: str) -> str:
    if "://" in folder:
        return f"{folder.rstrip('/')}/{name}"
    return str(PurePosixPath(folder) / name)


@contextlib.contextmanager
def _client(access: Access) -> Iterator[httpx.Client]:
    """Yield the shared client, or one of our own that is closed afterwards and trusts no environment variable."""
    if access.client is not None:
        yield access.client
        return
    with httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client:
        yield client


@contextlib.contextmanager
def _at(location: str) -> Iterator[None]:
    """Add the location to errors that lack one, and put the operating system's errors into words."""
    shown = location.partition("?")[0]
    try:
        yield
    except MetadataError as error:
        if error.where:
            raise
        raise error.at(shown) from error.__cause__
    except FileNotFoundError as error:
        hint = "check the path, upper and lower case included"
        raise MetadataError(summary="there is no such file", where=shown, hint=hint) from error
    except IsADirectoryError as error:
        raise MetadataError(summary="this is a folder, not a file", where=shown) from error
    except OSError as error:
        raise MetadataError(summary=f"it cannot be read: {error.strerror or error}", where=shown) from error


__all__ = ["HUB", "INDEX", "SINGLE", "Access", "CommandFile", "LocalFile", "read_gguf", "read_hf", "resolve"]
