"""Fetching a file to its place: once, resumed where it broke off, verified, and there only when it is whole.

A download is written to ``NAME.part`` beside its place; ``NAME.part.json`` remembers which version of the file it is,
so that two versions are never glued together. Who fetches holds the operating system's lock on the part: two labs
with one models folder load one model once. A file of the host itself is hard-linked where that is possible.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
import urllib.parse
from collections.abc import Iterator

from labctl.agent.call import Call, Refusal, Reply, answer
from labctl.agent.download import UNAVAILABLE, Download, Part, Retry
from labctl.agent.files import sha256, sync_folder, temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

NO_SPACE = "no space"
WRONG = "wrong"
ATTEMPTS = 5
"""Attempts in a row without a single new byte."""
PAUSE = 0.5
"""Seconds before the second attempt; doubled for each further one."""
LONGEST_PAUSE = 30.0
RESERVE = 64 << 20
"""Bytes that stay free on the file system."""
REPORT_EVERY = 0.25
"""Seconds between two progress events."""
CHUNK = 8 << 20
MODE = 0o644
"""Whatever the umask: services run as users of their own, and models are no secrets."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def fetch(call: Call) -> Reply:
    """Put the file at ``url`` in ``place``, whose folder exists.

    ``url`` is ``http(s)://…`` or ``file:///…``; ``size`` and ``sha256`` are verified where given; ``token`` is sent to
    the address's own server only. Events tell ``done`` and ``total`` bytes. Returns ``size``, ``mtime`` and ``digest``
    (None for a linked file whose digest nobody asked for).

    Refusals: ``unavailable`` (``why``), ``no space`` (``more``, ``free``), ``wrong`` (``why``).
    """
    return _Fetching(call).fetch()


class _Fetching:
    """One file on its way."""

    def __init__(self, call: Call) -> None:
        self._call, self._values = call, call.values
        self._place = str(call.values["place"])
        self._size, self._wanted = call.values.get("size"), call.values.get("sha256")
        self._part = Part(f"{self._place}.part")
        self._reported = 0.0

    def fetch(self) -> Reply:
        """Fetch it, unless somebody else has just done so."""
        url = str(self._values["url"])
        before = _identity(self._place)
        with self._alone() as waited:
            if waited and _identity(self._place) != before and self._is_right(self._place):
                return self._answer(self._wanted)
            if url.startswith("file://"):
                return self._from_disk(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
            return self._from_web(url)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold the part's lock; tell whether somebody else had it."""
        descriptor, waited = self._locked()
        try:
            yield waited
        finally:
            self._part.tidy()
            os.close(descriptor)

    def _locked(self) -> tuple[int, bool]:
        """Return the open, locked part; a part that was renamed or removed while it was waited for is none any more."""
        waited = False
        while True:
            descriptor = self._part.open_locked()
            while not _lock(descriptor):
                waited = True
                try:
                    self._pause(0.1)
                except BaseException:
                    os.close(descriptor)
                    raise
            if self._part.is_same(descriptor):
                return descriptor, waited
            os.close(descriptor)

    def _is_right(self, path: str) -> bool:
        with contextlib.suppress(OSError):
            return not self._complaint(os.path.getsize(path), self._wanted and sha256(path, self._call))
        return False

    def _from_disk(self, source: str) -> Reply:
        """Hard-link, or copy where the file system does not allow that."""
        if not os.path.isfile(source):
            raise Refusal(UNAVAILABLE, {"why": f"`{source}` is not a file on this host"})
        beside = temporary(self._place)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        try:
            try:
                os.link(os.path.realpath(source), beside)
            except OSError:
                self._copy(source, beside)
            digest = sha256(beside, self._call) if self._wanted else None
            return self._finish(beside, digest)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)

    def _copy(self, source: str, target: str) -> None:
        total = os.path.getsize(source)
        self._need_space(total)
        with open(source, "rb") as old, self._writing(target, "wb") as new:
            while chunk := old.read(CHUNK):
                self._call.check()
                new.write(chunk)
                self._report(new.tell(), total)

    def _from_web(self, url: str) -> Reply:
        """Download, resuming what is there, as long as every few attempts bring something new."""
        most, left, problem = self._part.size(), ATTEMPTS, ""
        while left:
            try:
                return self._download(url)
            except Retry as retry:
                problem, wait = retry.why, retry.wait
            grown = self._part.size() > most
            most, left = max(most, self._part.size()), ATTEMPTS - 1 if grown else left - 1
            if left:
                self._pause(min(max(wait, PAUSE * 2 ** (ATTEMPTS - 1 - left)), LONGEST_PAUSE))
        raise Refusal(UNAVAILABLE, {"why": problem})

    def _download(self, url: str) -> Reply:
        """Make one attempt, or find out that the part is whole already."""
        download = Download(url, str(self._values.get("token") or ""), self._part, self._wanted)
        resumed = download.have
        if resumed and resumed == self._size and self._wanted:
            digest = sha256(self._part.path, self._call)
        else:
            with download.opened(self._size):
                self._check_length(download.total)
                self._need_space((download.total or 0) - download.have)
                resumed = download.have
                digest = self._receive(download)
        wrong = self._complaint(self._part.size(), digest, download.linked)
        if wrong and resumed:
            self._part.restart()
            message = f"what had arrived earlier was of another version: {wrong}"
            raise Retry(message)
        return self._finish(self._part.path, digest, download.linked)

    def _receive(self, download: Download) -> str:
        """Take what arrives. Returns the SHA-256 of the whole file."""
        digest, done = hashlib.sha256(), download.have
        if done:
            self._hash_part(digest)
        with self._writing(self._part.path, "ab" if done else "wb") as file:
            for chunk in download.chunks():
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                self._report(done, download.total)
                self._call.check()
        if download.total is not None and done != download.total:
            message = f"the connection ended after {done} of {download.total} bytes"
            raise Retry(message)
        return digest.hexdigest()

    def _hash_part(self, digest: hashlib._Hash) -> None:
        with open(self._part.path, "rb") as file:
            while chunk := file.read(CHUNK):
                self._call.check()
                digest.update(chunk)

    @contextlib.contextmanager
    def _writing(self, path: str, how: str) -> Iterator[IO[bytes]]:
        """Write, and have it on disk at the end; a full disk is no error of the operating system's."""
        try:
            with open(path, how) as file:
                os.fchmod(file.fileno(), MODE)
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in FULL:
                raise Refusal(NO_SPACE, {"more": None, "free": self._free()}) from error
            raise

    def _finish(self, path: str, digest: str | None, linked: str | None = None) -> Reply:
        """Verify it, then rename it to its place."""
        wrong = self._complaint(os.path.getsize(path), digest, linked)
        if wrong:
            self._part.discard()
            raise Refusal(WRONG, {"why": wrong})
        os.replace(path, self._place)
        self._part.forget()
        sync_folder(os.path.dirname(self._place))
        return self._answer(digest)

    def _answer(self, digest: str | None) -> Reply:
        found = os.stat(self._place)
        self._call.event({"done": found.st_size, "total": found.st_size})
        return answer(digest=digest, size=found.st_size, mtime=found.st_mtime_ns)

    def _complaint(self, size: int, digest: str | None, linked: str | None = None) -> str:
        """Return what is wrong with a file, "" for nothing. ``linked``: the digest that its own server announced."""
        wanted = self._wanted or linked
        if self._size is not None and size != self._size:
            return f"it has {size} bytes, not {self._size}"
        if wanted is not None and digest != wanted:
            return f"its SHA-256 is {digest}, not {wanted}"
        return ""

    def _check_length(self, total: int | None) -> None:
        if total is not None and self._size is not None and total != self._size:
            self._part.discard()
            raise Refusal(WRONG, {"why": f"it has {total} bytes, not {self._size}"})

    def _need_space(self, more: int) -> None:
        free = self._free()
        if more + RESERVE > free:
            raise Refusal(NO_SPACE, {"more": more, "free": free})

    def _free(self) -> int:
        found = os.statvfs(os.path.dirname(self._place))
        return found.f_bavail * found.f_frsize

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._call.check()
            time.sleep(0.05)

    def _report(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self._call.event({"done": done, "total": total})
            if self._free() < RESERVE:  # others write there, too: more downloads, or what the host is for
                raise Refusal(NO_SPACE, {"more": total and total - done, "free": self._free()})


def _lock(descriptor: int) -> bool:
    """Take the lock if it is free; a file system without locks has nothing to offer and nothing to wait for."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
