"""Which paths there are, and how each may be asked."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

APIS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/responses",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/images/variations",
    }
)
"""Paths that are passed on to the server of the model that a request names."""
MODELS: Final = "/v1/models"
SERVERS: Final = "/api/servers/"
_METHODS: Final = MappingProxyType(
    {
        "/": ("GET",),
        "/health": ("GET",),
        "/metrics": ("GET",),
        MODELS: ("GET",),
        "/api/state": ("GET",),
        "/api/requests": ("GET", "DELETE"),
    }
)


def plain(path: str) -> str:
    """Return a path without the slash that some clients put at its end."""
    return path.rstrip("/") or "/"


def methods(path: str) -> tuple[str, ...]:
    """Return how a path may be asked, () where there is nothing. Where GET may be asked, HEAD may."""
    if path in APIS or path.startswith(SERVERS):
        return ("POST",)
    return ("GET",) if path.startswith(f"{MODELS}/") else _METHODS.get(path, ())
