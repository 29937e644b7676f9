"""One attempt to download a file by HTTP, going on where an earlier one broke off."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

from labctl.agent.call import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    Notes = dict[str, Any]

UNAVAILABLE = "unavailable"
TIMEOUT = 30.0
"""Seconds without a byte before an attempt is given up."""
CHUNK = 1 << 20
PASSING = frozenset({408, 421, 425, 429})
"""Statuses below 500 that another attempt may cure."""
FINAL = frozenset({501, 505, 511})
"""Statuses from 500 on that it does not."""
UNSATISFIABLE = 416
PARTIAL = 206
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class Retry(Exception):  # noqa: N818 - a reason for another attempt
    """This attempt failed in a way that another one may not; ``wait``: the server asked for so many seconds."""

    def __init__(self, why: str, wait: float = 0) -> None:
        self.why, self.wait = why, wait
        super().__init__(why)


class Part:
    """A file that is not whole yet, and the notes on what it is of."""

    def __init__(self, path: str) -> None:
        self.path, self._notes = path, f"{path}.json"

    def size(self) -> int:
        """Return how much has arrived."""
        try:
            return os.path.getsize(self.path)
        except FileNotFoundError:
            return 0

    def notes(self) -> Notes:
        """Return what is known of it, nothing when that cannot be read."""
        try:
            with open(self._notes, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, notes: Notes) -> None:
        """Write down what it is."""
        with open(self._notes, "w", encoding="utf-8") as file:
            json.dump(notes, file)

    def open_locked(self) -> int:
        """Return a descriptor to lock. A part that is a link to another file is not written to."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.path).st_nlink > 1:
                os.unlink(self.path)
        return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)

    def is_same(self, descriptor: int) -> bool:
        """Tell whether a descriptor is still this file's."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def restart(self) -> None:
        """Forget what has arrived, and keep the file: somebody holds its lock."""
        self.forget()
        os.truncate(self.path, 0)

    def discard(self) -> None:
        """Remove it."""
        self.forget()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def forget(self) -> None:
        """Remove the notes."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._notes)

    def tidy(self) -> None:
        """Remove it when nothing has arrived."""
        if not self.size():
            self.discard()


class Download:
    """One attempt.

    Attributes:
        have: bytes that are there and of the same version; 0 once the server has sent the whole file.
        total: bytes of the whole file, None when nobody knows.
        linked: the SHA-256 that the server announced.
    """

    def __init__(self, url: str, token: str, part: Part, sha256: str | None) -> None:
        self.have = 0
        self.total: int | None = None
        self.linked: str | None = None
        self._url, self._token, self._part, self._sha256 = url, token, part, sha256
        self._notes = part.notes()
        self._response: Any = None
        if self._resumable():
            self.have = part.size()

    @contextlib.contextmanager
    def opened(self, size: int | None) -> Iterator[None]:
        """Ask for the file. Retry or Refusal ("unavailable") when it is not to be had."""
        response, redirected = self._ask()
        with contextlib.closing(response):
            self.linked = redirected.linked
            self._response = response
            self._understand(response, size)
            yield

    def chunks(self) -> Iterator[bytes]:
        """Yield what arrives, as it arrives."""
        while True:
            try:
                chunk = self._response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise Retry(_spoken(error)) from error
            if not chunk:
                return
            yield chunk

    def _resumable(self) -> bool:
        """Whether what is there can be told to be of the file that is wanted."""
        known = self._notes
        if self._sha256 and known.get("sha256") == self._sha256:
            return True
        return known.get("url") == self._url and bool(known.get("etag") or known.get("modified"))

    def _ask(self) -> tuple[Any, _Redirects]:
        redirects = _Redirects(self._url, self._token)
        request = urllib.request.Request(self._url, headers=self._headers())  # noqa: S310 - http(s) only, see _opener
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            return _opener(redirects).open(request, timeout=TIMEOUT), redirects
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from error
        except urllib.error.URLError as error:
            reason = error.reason if isinstance(error.reason, Exception) else error
            raise _failed(reason) from error
        except (OSError, http.client.HTTPException) as error:
            raise _failed(error) from error
        except ValueError as error:
            raise Refusal(UNAVAILABLE, {"why": str(error)}) from error

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "labctl"}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            etag, known = str(self._notes.get("etag") or ""), self._notes.get("url") == self._url
            validator = etag if etag and not etag.startswith("W/") else "" if etag else self._notes.get("modified")
            if known and validator:
                headers["If-Range"] = str(validator)
        return headers

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        status = error.code
        if status == UNSATISFIABLE and self.have:
            self._part.restart()
            return Retry("the server has another version of the file")
        why = f"HTTP {status} {error.reason}".rstrip()
        if status in FINAL or (status < 500 and status not in PASSING):
            return Refusal(UNAVAILABLE, {"why": why})
        after = error.headers.get("Retry-After") or ""
        return Retry(why, float(after) if after.isdecimal() else 0)

    def _understand(self, response: Any, size: int | None) -> None:
        """Find out what the answer is: the rest or the whole, and of how much."""
        headers: http.client.HTTPMessage = response.headers
        if (headers.get("Content-Encoding") or "identity").lower() != "identity":
            raise Refusal(UNAVAILABLE, {"why": f"the server sends it as {headers['Content-Encoding']}"})
        length = headers.get("Content-Length") or ""
        self.total = int(length) if length.isdecimal() else size
        if response.status == PARTIAL:
            self._continue(headers)
        else:
            self.have = 0
        self._part.note(
            {
                "url": self._url,
                "etag": headers.get("ETag"),
                "modified": headers.get("Last-Modified"),
                "sha256": self._sha256 or self.linked,
            }
        )

    def _continue(self, headers: http.client.HTTPMessage) -> None:
        """Check that the rest is of the same version and begins where it has to."""
        found = _RANGE.fullmatch((headers.get("Content-Range") or "").strip())
        known = self._notes.get("etag") if self._notes.get("url") == self._url else None
        other = known and headers.get("ETag") and headers.get("ETag") != known
        if other or (found and found[1] != str(self.have)) or not self.have:
            self._part.restart()
            message = "the server has another version of the file" if other else "the server sent another part of it"
            raise Retry(message)
        if found and found[2] != "*":
            self.total = int(found[2])
        elif self.total is not None and headers.get("Content-Length"):
            self.total += self.have


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token goes to the first server only, and the Hub's word on a digest is kept."""

    max_redirections = 10

    def __init__(self, url: str, token: str) -> None:
        self._origin, self._token = _origin(url), token
        self.linked: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request."""
        if urllib.parse.urlsplit(newurl).scheme not in {"http", "https"}:
            raise Refusal(UNAVAILABLE, {"why": "it was redirected to something that is no web address"})
        digest = (headers.get("X-Linked-Etag") or "").strip('"')
        if _SHA256.fullmatch(digest):
            self.linked = digest
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and self._token and _origin(newurl) == self._origin:
            following.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _opener(redirects: _Redirects) -> urllib.request.OpenerDirector:
    """Return what asks: by HTTP alone, through the host's own proxies."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        redirects,
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _failed(error: Exception) -> Exception:
    """Return what a failed connection means: a name that does not exist will not exist in a second either."""
    no_name = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
    no_trust = isinstance(error, ssl.SSLCertVerificationError)
    no_way = isinstance(error, OSError) and error.errno in {errno.EACCES, errno.EPERM}
    if no_name or no_trust or no_way:
        return Refusal(UNAVAILABLE, {"why": _spoken(error)})
    return Retry(_spoken(error))


def _spoken(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
