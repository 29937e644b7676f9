"""Fetching model files: once, resumable, verified, and in place only when whole.

A download is written to ``NAME.part`` beside its place; ``NAME.part.json`` remembers which version of the file it is
(URL and ETag), so that two versions are never glued together. A local file is hard-linked where possible.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labctl.artefact import ModelFile
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Emit, HostError
from labctl.hosts.events import Progress
from labctl.hosts.local import CHUNK, sha256, sync_folder
from labctl.quantity import format_size
from labctl.values import dataclass

if TYPE_CHECKING:
    import httpx

ATTEMPTS: Final = 5
TIMEOUT: Final = 30.0
"""Seconds without a byte before an attempt is given up."""
RESERVE: Final = 64 << 20
"""Bytes that stay free on the file system."""
REPORT_EVERY: Final = 0.25
"""Seconds between two progress events."""
HUB: Final = "https://huggingface.co"
PERMANENT: Final = frozenset({400, 401, 403, 404, 410, 451})
"""HTTP statuses that another attempt does not cure."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What arrived. ``digest`` is None for a linked file whose digest nobody asked for."""

    digest: str | None
    size: int
    mtime: int


def address_of(url: str) -> str:
    """Return the HTTP address of ``hf://org/repo[@revision]/file``; other URLs as they are. HF_ENDPOINT is obeyed."""
    if not url.startswith("hf://"):
        return url
    org, repo, path = url.removeprefix("hf://").split("/", 2)
    repo, _, revision = repo.partition("@")
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    return f"{hub}/{org}/{repo}/resolve/{revision or 'main'}/{urllib.parse.quote(path)}"


def fetch(model: ModelFile, place: str, emit: Emit, check: Callable[[], None]) -> Fetched:
    """Put a model file in place.

    Args:
        model: what; its ``size`` and ``sha256`` are verified where given.
        place: absolute path; its folder exists.
        emit: is told the progress.
        check: called between chunks; may raise to stop. What was loaded so far is kept for the next time.

    Raises:
        HostError: LAB120 it cannot be had, LAB121 no space, LAB122 it is not what it should be.
    """
    fetching = _Fetching(model, Path(place), emit, check)
    if model.url.startswith("file://"):
        return fetching.from_disk(Path(urllib.parse.unquote(urllib.parse.urlsplit(model.url).path)))
    return fetching.from_web(address_of(model.url))


class _Fetching:
    """One model file on its way."""

    def __init__(self, model: ModelFile, place: Path, emit: Emit, check: Callable[[], None]) -> None:
        self._model, self._place, self._emit, self._check = model, place, emit, check
        self._part = place.with_name(f"{place.name}.part")
        self._notes = place.with_name(f"{place.name}.part.json")
        self._reported = 0.0

    def from_disk(self, source: Path) -> Fetched:
        """Hard-link, or copy where the file system does not allow that."""
        if not source.is_file():
            why = f"`{source}` is not a file on `{self._model.host}`"
            raise self._unavailable(why)
        self._part.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), self._part)
        except OSError:
            self._need_space(source.stat().st_size)
            with source.open("rb") as file:
                self._copy(file, source.stat().st_size)
        digest = None if self._model.sha256 is None else sha256(str(self._part))
        return self._finish(digest)

    def from_web(self, url: str) -> Fetched:
        """Download, resuming what is there, in several attempts."""
        import httpx  # noqa: PLC0415 - a third of the start-up of every command that looks at hosts

        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._pause(min(2**attempt, 15) / 2)
            try:
                return self._finish(self._download(url))
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            except _Retry as retry:
                problem = str(retry)
        raise self._unavailable(problem)

    def _download(self, url: str) -> str:
        """One attempt. Returns the SHA-256 of the whole file."""
        import httpx  # noqa: PLC0415

        have, headers = self._resume(url)
        token = os.environ.get("HF_TOKEN")
        if token and self._model.url.startswith("hf://"):
            headers["Authorization"] = f"Bearer {token}"
        with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._discard()
                message = "the server has another version of the file"
                raise _Retry(message)
            self._refuse(response)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else self._model.size
            self._need_space((total or 0) - have)
            self._note(url, response.headers.get("ETag"))
            digest, size = self._receive(response, have, total)
        if total is not None and size != total:
            message = f"the connection ended after {size} of {total} bytes"
            raise _Retry(message)
        return digest

    def _resume(self, url: str) -> tuple[int, dict[str, str]]:
        """Return how much is there already and the headers that ask for the rest of the same version."""
        headers = {"Accept-Encoding": "identity"}
        try:
            notes: dict[str, Any] = json.loads(self._notes.read_text())
            have = self._part.stat().st_size
        except (OSError, ValueError):
            return 0, headers
        if notes.get("url") != url or not have or not (notes.get("etag") or self._model.sha256):
            return 0, headers
        headers["Range"] = f"bytes={have}-"
        if notes.get("etag") and not str(notes["etag"]).startswith("W/"):
            headers["If-Range"] = str(notes["etag"])
        return have, headers

    def _receive(self, response: httpx.Response, have: int, total: int | None) -> tuple[str, int]:
        digest = hashlib.sha256()
        if have:
            with self._part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    self._check()
                    digest.update(chunk)
        done = have
        with self._part.open("ab" if have else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                self._report(done, total)
                self._check()
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest(), done

    def _copy(self, source: Any, total: int) -> None:
        with self._part.open("wb") as target:
            while chunk := source.read(CHUNK * 8):
                self._check()
                target.write(chunk)
                self._report(target.tell(), total)
            target.flush()
            os.fsync(target.fileno())

    def _finish(self, digest: str | None) -> Fetched:
        """Verify the part, then rename it."""
        size = self._part.stat().st_size
        wrong = ""
        if self._model.size is not None and size != self._model.size:
            wrong = f"it has {size} bytes, not {self._model.size}"
        if self._model.sha256 is not None and digest != self._model.sha256:
            wrong = f"its SHA-256 is {digest}, not {self._model.sha256}"
        if wrong:
            self._discard()
            raise HostError(self._problem("LAB122", f"`{self._model.url}` is not what it should be: {wrong}"))
        self._part.replace(self._place)
        self._notes.unlink(missing_ok=True)
        sync_folder(self._place.parent)
        self._emit(Progress(host=self._model.host, path=self._model.path, done=size, total=size))
        return Fetched(digest, size, self._place.stat().st_mtime_ns)

    def _note(self, url: str, etag: str | None) -> None:
        self._notes.write_text(json.dumps({"url": url, "etag": etag}))

    def _discard(self) -> None:
        for path in (self._part, self._notes):
            path.unlink(missing_ok=True)

    def _refuse(self, response: httpx.Response) -> None:
        if response.status_code < 400:
            return
        what = f"HTTP {response.status_code} {response.reason_phrase}"
        if response.status_code in PERMANENT:
            raise self._unavailable(what)
        raise _Retry(what)

    def _need_space(self, more: int) -> None:
        free = shutil.disk_usage(self._place.parent).free
        if more + RESERVE > free:
            raise HostError(
                self._problem(
                    "LAB121",
                    f"no space for `{self._model.path}` on `{self._model.host}`: it needs {format_size(more)} more, "
                    f"{format_size(free)} are free",
                )
            )

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._check()
            time.sleep(0.05)

    def _report(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self._emit(Progress(host=self._model.host, path=self._model.path, done=done, total=total))

    def _unavailable(self, why: str) -> HostError:
        hint = "check the address; a gated repository needs the environment variable HF_TOKEN"
        return HostError(self._problem("LAB120", f"`{self._model.url}` cannot be had: {why}", hint))

    def _problem(self, code: str, summary: str, hint: str = "") -> Diagnostic:
        return Diagnostic(code=code, summary=summary, path=self._model.origin or None, hint=hint)


class _Retry(Exception):  # noqa: N818 - a reason for another attempt
    """This attempt failed in a way that another one may not."""


def remove_parts(place: str) -> None:
    """Remove what an unfinished download left beside its place."""
    for suffix in (".part", ".part.json"):
        with contextlib.suppress(FileNotFoundError):
            Path(place + suffix).unlink()
