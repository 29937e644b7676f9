"""Requests to an API server: one pool of connections, a bounded number at a time, retried where that is safe.

Reading, applying (server-side apply is idempotent) and deleting may be repeated, so they survive a server that restarts
in the middle: ``patience`` says for how many seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, urlencode

from labctl.values import dataclass

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
JSON: Final = "application/json"
AT_ONCE: Final = 8
"""Requests at the same time."""
TIMEOUT: Final = 60
"""Seconds that one request may take."""
PAGE: Final = 500
"""Objects per page of a list."""
BUSY: Final = frozenset({429, 502, 503, 504})
"""Answers of a server, or of what stands before it, that is not ready to answer."""
TRANSIENT: Final = frozenset({"InternalError", "ServerTimeout", "Timeout", "TooManyRequests"})
"""Reasons that lie with the server for the moment and not with the request."""

Value = Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")


class ApiError(Exception):
    """The server refused a request; ``status`` is its Status object."""

    def __init__(self, code: int, status: Value, method: str, path: str) -> None:
        self.code, self.status, self.method, self.path = code, status, method, path
        super().__init__(f"{method} {path}: {code} {self.message}")

    @property
    def reason(self) -> str:
        """The machine-readable reason, "" when there is none."""
        return str(self.status.get("reason") or "")

    @property
    def message(self) -> str:
        """What the server says about it."""
        return str(self.status.get("message") or "")

    @property
    def causes(self) -> Sequence[Value]:
        """The single things that are wrong, where the server lists them."""
        details = self.status.get("details") or {}
        return tuple(details.get("causes") or ())

    @property
    def transient(self) -> bool:
        """Whether the same request may be answered otherwise in a moment."""
        return self.code in BUSY or (self.code == 500 and self.reason in TRANSIENT)


class Unreachable(Exception):  # noqa: N818 - a fact about the server
    """No answer: nothing listens, the connection broke, or TLS failed (``tls``)."""

    def __init__(self, why: str, *, tls: bool = False) -> None:
        self.why, self.tls = why, tls
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer."""

    code: int
    value: Value


class Response(Protocol):
    """What of urllib3's response is used."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def data(self) -> bytes:
        """The whole body."""
        ...

    def stream(self, amt: int) -> Iterator[bytes]:
        """Yield the body as it comes."""
        ...

    def release_conn(self) -> None:
        """Give the connection back."""
        ...


Send = Callable[[str, str, Mapping[str, str], bytes | None, float | None], Response]
"""(method, path and query, headers, body, seconds to wait or None for a stream) → response. Raises ``Unreachable``."""


@dataclass(slots=True)
class Api:
    """One server.

    Attributes:
        send: makes one HTTP request, with the login.
        where: the server's address, for people; ``context`` the context's name.
        patience: seconds for which a request that may be repeated is, while the server does not answer.
        check: called between requests; raises to give up.
    """

    send: Send
    where: str
    context: str = ""
    patience: float = 0
    check: Callable[[], None] = field(default=lambda: None)

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = JSON,
    ) -> Answer:
        """Make one request. ApiError when it is refused, Unreachable when there is no answer."""
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": JSON, "User-Agent": "labctl"}
        data = None
        if body is not None:
            headers["Content-Type"] = content
            data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        again = method in {"GET", "DELETE"} or content in {APPLY, MERGE}
        deadline, pause = time.monotonic() + (self.patience if again else 0), 0.2
        while True:
            try:
                return self._once(method, path, target, headers, data)
            except (ApiError, Unreachable) as error:
                transient = isinstance(error, Unreachable) and not error.tls
                transient = transient or (isinstance(error, ApiError) and error.transient)
                if not transient or time.monotonic() >= deadline:
                    raise
            self.check()
            time.sleep(pause)
            pause = min(pause * 2, 2)

    def _once(self, method: str, path: str, target: str, headers: Mapping[str, str], data: bytes | None) -> Answer:
        response = self.send(method, target, headers, data, TIMEOUT)
        value = _value(response.data)
        if response.status >= 400:
            raise ApiError(response.status, value, method, path)
        return Answer(response.status, value)

    def get(self, path: str, **query: str) -> Value | None:
        """Return an object, None when there is none."""
        try:
            return self.call("GET", path, query).value
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def items(self, path: str, selector: str = "") -> list[Value]:
        """Return all objects of a list, page by page. ApiError 404 when the server has no such kind."""
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        found: list[Value] = []
        while True:
            value = self.call("GET", path, query).value
            found += value.get("items") or ()
            more = (value.get("metadata") or {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        """Yield the lines of a text that may go on coming (a pod's log)."""
        target = f"{path}?{urlencode(query)}"
        response = self.send("GET", target, {"Accept": "*/*"}, None, None)
        if response.status >= 400:
            raise ApiError(response.status, _value(response.data), "GET", path)
        rest = b""
        for chunk in response.stream(1 << 14):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
        if rest:
            yield rest.decode(errors="replace")
        response.release_conn()

    def each(self, work: Callable[[T], R], things: Iterable[T]) -> list[R]:
        """Do something with every thing, a bounded number at a time; the results are in the things' order."""
        todo = list(things)
        if len(todo) < 2:
            return [work(thing) for thing in todo]
        with ThreadPoolExecutor(min(AT_ONCE, len(todo))) as pool:
            return list(pool.map(work, todo))


def segment(name: str) -> str:
    """Return a name as a part of a path."""
    return quote(name, safe="")


def _value(data: bytes) -> Value:
    try:
        value = json.loads(data)
    except ValueError:
        return {"message": data[:400].decode(errors="replace").strip()}
    return value if isinstance(value, dict) else {"message": str(value)}
