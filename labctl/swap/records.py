"""Requests as the dashboard's list and the log show them. No prompt, unless the lab asks for the first words."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from labctl.swap.asgi import Scope
from labctl.swap.asked import Asked
from labctl.swap.config import Key

PREVIEW: Final = 80
"""Characters of a prompt that are shown where a lab wants to see them."""

_OWN: Final = uuid.uuid4().hex[:20]
_NUMBERS: Final = itertools.count(1)


@dataclass(slots=True)
class Record:
    """A request as the dashboard's list shows it. ``at`` is the wall clock's time, for people; all else is measured."""

    id: str
    at: float
    path: str
    model: str
    client: str
    key: str
    status: int = 0
    server: str = ""
    waited: float = 0.0
    first: float = 0.0
    seconds: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)
    preview: str = ""

    def line(self) -> str:
        """Return what the log says of it."""
        return json.dumps(
            {
                "id": self.id,
                "path": self.path,
                "model": self.model or "?",
                "server": self.server,
                "status": self.status,
                "waited": round(self.waited, 4),
                "seconds": round(self.seconds, 4),
                "key": self.key,
            }
        )


def begin(path: str, scope: Scope, headers: Mapping[bytes, bytes], key: Key) -> Record:
    """Return the record of a request that has come; its id is the client's own where that can be shown."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")[:64]
    known = given if given.isascii() and given.isprintable() and given else f"{_OWN}{next(_NUMBERS):012x}"
    scope["id"] = known.encode()
    client = scope.get("client") or ("", 0)
    return Record(known, time.time(), path, "", client[0], key.name)


def preview(asked: Asked) -> str:
    """Return how a prompt begins."""
    if asked.value is None:
        return ""
    messages = asked.value.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    return str((last.get("content") if isinstance(last, dict) else "") or asked.value.get("prompt") or "")[:PREVIEW]
