"""Reads ranges of a file over HTTP, and says in words why it could not.

A token is sent to the origin it was given for and to no other: redirects are followed by hand, the token is dropped as
soon as scheme, host or port changes, and ``https`` never turns into ``http``. Query strings (signed addresses) never
appear in an error.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping

import httpx

from labctl.values import dataclass
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.window import HEADER_LIMIT

MAX_REDIRECTS = 8
ATTEMPTS = 2
"""A broken connection or a 502, 503 or 504 is tried once more."""
DEADLINE = 120.0
"""Seconds for one range, however slowly its bytes drip in."""
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
ERROR_BODY = 16 * 1024
SMALL_FILE = 32 * 1024 * 1024

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
_PASSING = frozenset({502, 503, 504})
_REASONS: Mapping[int, tuple[str, str]] = {
    401: ("the server asks for a token", "give a token that may read it (for Hugging Face: HF_TOKEN)"),
    403: ("the server refuses access", "accept the model's licence on its page, or use a token that may read it"),
    404: ("there is no such file", "check the repository and the file name, upper and lower case included"),
    410: ("the file was removed", "choose another source"),
    416: ("the file is shorter than its header says", "check that it was uploaded whole"),
    429: ("the server answers that there were too many requests", "wait, or use a token"),
}


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and the origin (``https://host``) that may see it. Prints without its value."""

    origin: str
    value: str

    def __repr__(self) -> str:
        return f"Token(origin={self.origin!r}, value='***')"

    def headers(self, url: httpx.URL) -> dict[str, str]:
        """Return the header for ``url``; empty unless it is of the token's origin."""
        same = _origin(url) == _origin(httpx.URL(self.origin))
        return {"Authorization": f"Bearer {self.value}"} if same and self.value else {}


class HttpFile:
    """A ``ReadRange`` over one address.

    A server that ignores ``Range`` is read from its beginning through one connection, which is left as soon as the
    caller needs no more. Use as a context manager.

    Args:
        url: address of the file; may carry a query.
        client: the connection pool; it must not follow redirects itself.
        token: sent to its own origin only.
    """

    def __init__(self, url: str, client: httpx.Client, token: Token | None = None) -> None:
        self._url = _parse(url)
        self._client = client
        self._token = token
        self._resolved: httpx.URL | None = None
        self._stack = contextlib.ExitStack()
        self._whole: Iterator[bytes] | None = None
        self._prefix = bytearray()
        self.size: int | None = None
        self.where = _shown(self._url)

    def __enter__(self) -> HttpFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; fewer only at the end of the file.

        Raises:
            MetadataError: in words, for every way in which a server can fail.
        """
        try:
            if self._whole is not None:
                return self._from_whole(offset, length, self._whole)
            return self._ask(offset, length)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise MetadataError(summary=_broken(error), where=self.where) from error

    def _ask(self, offset: int, length: int) -> bytes:
        response = self._open({"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"})
        if response.status_code == 206:
            with contextlib.closing(response):
                self._check_range(response, offset)
                return _upto(response.iter_raw(), length)
        self._stack.callback(response.close)
        declared = response.headers.get("content-length", "")
        self.size = int(declared) if declared.isdecimal() and "content-encoding" not in response.headers else None
        self._whole = response.iter_bytes()
        return self._from_whole(offset, length, self._whole)

    def _from_whole(self, offset: int, length: int, chunks: Iterator[bytes]) -> bytes:
        if offset + length > HEADER_LIMIT * 2:
            raise MetadataError(
                summary=f"the server cannot send parts of a file, and the header goes on after {HEADER_LIMIT} bytes",
                where=self.where,
            )
        missing = offset + length - len(self._prefix)
        if missing > 0:
            self._prefix += _upto(chunks, missing)
        return bytes(self._prefix[offset : offset + length])

    def _check_range(self, response: httpx.Response, offset: int) -> None:
        match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != offset:
            raise MetadataError(summary="the server answered with another part than asked for", where=self.where)
        if match[3] != "*":
            self.size = int(match[3])

    def _open(self, headers: Mapping[str, str]) -> httpx.Response:
        """Return an open response of status 200 or 206, after redirects and at most one more attempt."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._follow(headers)
            except httpx.TransportError:
                if attempt == ATTEMPTS:
                    raise
                continue
            if response.status_code in {200, 206}:
                return response
            expired = response.status_code in {401, 403} and self._resolved is not None
            if attempt == ATTEMPTS or not (expired or response.status_code in _PASSING):
                with contextlib.closing(response):
                    raise _refusal(response, self.where)
            response.close()
            self._resolved = None
        raise AssertionError

    def _follow(self, headers: Mapping[str, str]) -> httpx.Response:
        url, base = self._resolved or self._url, self._resolved or self._url
        tokens = self._token if _origin(url) == _origin(self._url) else None
        for _ in range(MAX_REDIRECTS + 1):
            request = self._client.build_request(
                "GET", url, headers={**headers, **(tokens.headers(url) if tokens else {})}
            )
            response = self._client.send(request, stream=True, follow_redirects=False)
            if not response.is_redirect:
                self._resolved = url if url != self._url else None
                return response
            with contextlib.closing(response):
                url = _next(response, url, self.where)
            tokens = tokens if _origin(url) == _origin(base) else None
        raise MetadataError(summary=f"the server redirects more than {MAX_REDIRECTS} times", where=self.where)


def fetch_small(url: str, client: httpx.Client, token: Token | None = None) -> bytes | None:
    """Return a small file whole, or None when the server says 404.

    Raises:
        MetadataError: any other failure, or more than 32 MiB.
    """
    try:
        with HttpFile(url, client, token) as file:
            content = file(0, SMALL_FILE + 1)
    except MetadataError as error:
        if isinstance(error.__cause__, NotFoundError):
            return None
        raise
    if len(content) > SMALL_FILE:
        raise MetadataError(summary=f"this file has more than {SMALL_FILE} bytes", where=_shown(_parse(url)))
    return content


class NotFoundError(Exception):
    """The cause of a ``MetadataError`` for status 404."""


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise MetadataError(summary=f"this is not a valid address: {error}", where=url.partition("?")[0]) from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise MetadataError(summary="this is not an http(s) address", where=url.partition("?")[0])
    return parsed


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _shown(url: httpx.URL) -> str:
    return str(url.copy_with(query=None, fragment=None, userinfo=b""))


def _next(response: httpx.Response, url: httpx.URL, where: str) -> httpx.URL:
    """Return where a redirect leads; never from https to http."""
    target = url.join(response.headers.get("location", ""))
    if target.scheme not in {"http", "https"} or (url.scheme == "https" and target.scheme == "http"):
        raise MetadataError(summary=f"the server redirects to an unsafe address on {target.host!r}", where=where)
    return target


def _upto(chunks: Iterator[bytes], length: int) -> bytes:
    """Collect ``length`` bytes, or all there are, within the deadline."""
    collected, begun = bytearray(), time.monotonic()
    for chunk in chunks:
        collected += chunk
        if len(collected) >= length:
            break
        if time.monotonic() - begun > DEADLINE:
            raise MetadataError(summary=f"the server sent {len(collected)} bytes in {DEADLINE:.0f} seconds")
    return bytes(collected)


def _refusal(response: httpx.Response, where: str) -> MetadataError:
    status = response.status_code
    summary, hint = _REASONS.get(status, ("", ""))
    if not summary:
        summary = "the server has a problem of its own" if status >= 500 else "the server refuses"
        hint = "try again later" if status >= 500 else ""
    said = response.headers.get("x-error-message") or _body(response)
    error = MetadataError(summary=f"{summary} (HTTP {status}{f': {said}' if said else ''})", where=where, hint=hint)
    error.__cause__ = NotFoundError() if status == 404 else None
    return error


def _body(response: httpx.Response) -> str:
    """Return the first words of an error's body, or nothing when it is not text."""
    try:
        text = _upto(response.iter_bytes(), ERROR_BODY)[:ERROR_BODY].decode("utf-8")
    except (httpx.HTTPError, httpx.StreamError, UnicodeDecodeError, MetadataError):
        return ""
    plain = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return "".join(character for character in plain if character.isprintable())[:160]


def _broken(error: Exception) -> str:
    if isinstance(error, httpx.ConnectTimeout | httpx.ReadTimeout | httpx.TimeoutException):
        return "the server did not answer in time"
    if isinstance(error, httpx.ConnectError):
        return f"no connection: {error}"
    if isinstance(error, httpx.DecodingError):
        return "the server sent a body that cannot be decompressed"
    return f"the connection broke: {str(error) or type(error).__name__}"
