"""A registry for the rig: ``image`` writes an image made of tarballs into a folder, ``serve`` lets Docker pull from it.

There is one image per name, and it is the answer to every tag: labctl renders releases that are not here. Only
the standard library: it runs with whatever Python the machine has. Layers are kept uncompressed, so that a pull costs a
copy and no more.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def write_image(to: Path, name: str, entrypoint: Sequence[str], env: str, layers: Sequence[str]) -> None:
    """Write an image that consists of ``to/layers/<layer>.tar``; its name loses the registry, as at any mirror."""
    made = [_layer(to, to / "layers" / f"{layer}.tar") for layer in layers]
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "Env": [f"PATH={PATH}", env], "WorkingDir": "/app"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in made]},
    }
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": _blob(to, config, CONFIG), "layers": made}
    digest = _blob(to, manifest, MANIFEST)["digest"]
    path = to / "names" / name.partition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest)


def _layer(to: Path, tar: Path) -> dict[str, Any]:
    with tar.open("rb") as stream:
        digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    place = _place(to, digest)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tar, place)
    return {"mediaType": LAYER, "digest": digest, "size": place.stat().st_size}


def _blob(to: Path, value: Any, kind: str) -> dict[str, Any]:
    data = json.dumps(value, sort_keys=True).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    place = _place(to, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _place(to: Path, digest: str) -> Path:
    return to / "blobs" / digest.replace(":", "-")


class Registry(BaseHTTPRequestHandler):
    """The part of the distribution API that a pull needs; see github.com/opencontainers/distribution-spec."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].removeprefix("/v2/").strip("/")
        if not path:
            self._send(200, "application/json", b"{}")
            return
        name, _, rest = path.rpartition("/manifests/") if "/manifests/" in path else path.rpartition("/blobs/")
        known = self.folder / "names" / name
        digest = rest if rest.startswith("sha256:") else known.read_text() if known.is_file() else ""
        place = _place(self.folder, digest)
        if not digest or not place.is_file():
            self._send(404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
            return
        self._file(place, digest, MANIFEST if "/manifests/" in path else "application/octet-stream", body=body)

    def _file(self, place: Path, digest: str, kind: str, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(place.stat().st_size))
        self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if body:
            with place.open("rb") as stream:
                shutil.copyfileobj(stream, self.wfile, 1 << 20)

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def serve(folder: Path, address: str, port: int) -> None:
    """Serve until killed."""
    handler = type("Handler", (Registry,), {"folder": folder})
    ThreadingHTTPServer((address, port), handler).serve_forever()


def main(arguments: Sequence[str]) -> None:
    """``image FOLDER NAME ENTRYPOINT ENV LAYER…`` or ``serve FOLDER ADDRESS PORT``."""
    command, folder, *rest = arguments
    if command == "image":
        name, entrypoint, env, *layers = rest
        write_image(Path(folder), name, json.loads(entrypoint), env, layers)
    else:
        serve(Path(folder), rest[0], int(rest[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
