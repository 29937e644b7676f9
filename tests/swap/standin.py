"""A stand-in for servers that llama.cpp is not: speech, images, and answers of any length. ``standin PORT``.

It says what it was sent, byte for byte counted, so that a test can tell what a gateway has made of it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping

from aiohttp import web

SOUND = hashlib.shake_256(b"sound").digest(3 << 20)
"""What it says aloud: not text, not JSON, with every byte there is."""
MIB = 1 << 20


async def health(_request: web.Request) -> web.Response:
    """Say that it is there."""
    return web.json_response({"status": "ok"})


async def heard(request: web.Request) -> web.Response:
    """Read a body piece by piece and say what it was."""
    digest, size, first = hashlib.sha256(), 0, b""
    async for piece in request.content.iter_chunked(1 << 16):
        digest.update(piece)
        size += len(piece)
        first = (first + piece)[:600]
    return web.json_response(
        {
            "text": f"{size} bytes",
            "size": size,
            "sha256": digest.hexdigest(),
            "first": first.decode("latin-1"),
            "headers": _headers(request.headers),
        },
        headers={"access-control-allow-origin": "*", "x-request-id": "the server's own"},
    )


async def said(request: web.Request) -> web.Response:
    """Speak."""
    asked = await request.json()
    kind = asked.get("response_format", "mp3")
    return web.Response(body=SOUND, content_type=f"audio/{kind}", headers={"x-voice": asked["voice"]})


async def poured(request: web.Request) -> web.StreamResponse:
    """Answer with as many MiB as it is told, as fast as they are taken."""
    asked = await request.json()
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    line = b"data: " + b"x" * 1016 + b"\n\n"
    for _ in range(asked["max_tokens"]):
        await response.write(line * (MIB // len(line)))
    await response.write_eof()
    return response


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def main(port: int) -> None:
    """Serve."""
    app = web.Application(client_max_size=1 << 40)
    app.router.add_get("/health", health)
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations"):
        app.router.add_post(path, heard)
    for path in ("/v1/images/generations", "/v1/embeddings", "/v1/rerank", "/v1/chat/completions"):
        app.router.add_post(path, heard)
    app.router.add_post("/v1/audio/speech", said)
    app.router.add_post("/v1/completions", poured)
    web.run_app(app, host="127.0.0.1", port=port, print=None, handle_signals=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
