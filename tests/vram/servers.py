"""Real HTTP servers on loopback, with the habits that file hosts really have."""

from __future__ import annotations

import contextlib
import gzip
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class Handler(BaseHTTPRequestHandler):
    """Serves ``content`` by range; a path's first word chooses a habit."""

    protocol_version = "HTTP/1.1"
    content: ClassVar[bytes] = b""
    elsewhere: ClassVar[str] = ""
    seen: ClassVar[list[tuple[str, str, str]]] = []
    """Path, Authorization and Range of every request."""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.seen.append((self.path, self.headers.get("Authorization", ""), self.headers.get("Range", "")))
        habit = getattr(self, "on_" + path.split("/")[1].replace("-", "_"), None)
        handler: Callable[[], None] = habit or self.on_file
        with contextlib.suppress(ConnectionError):
            handler()

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def on_file(self) -> None:
        match = re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", ""))
        if not match:
            self.reply(200, self.content)
            return
        begin, end = int(match[1]), min(int(match[2]) + 1, len(self.content))
        if begin >= len(self.content):
            self.reply(416, b"", Content_Range=f"bytes */{len(self.content)}")
            return
        self.reply(206, self.content[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{len(self.content)}")

    def on_whole(self) -> None:
        self.reply(200, self.content)

    def on_hop(self) -> None:
        self.reply(302, b"", Location="/file/moved.gguf?signature=s3cret")

    def on_away(self) -> None:
        self.reply(302, b"", Location=f"{self.elsewhere}/file/cdn.gguf?signature=s3cret")

    def on_there_and_back(self) -> None:
        self.reply(302, b"", Location=f"{self.elsewhere}/back")

    def on_loop(self) -> None:
        self.reply(302, b"", Location="/loop")

    def on_unsafe(self) -> None:
        self.reply(302, b"", Location="file:///etc/passwd")

    def on_status(self) -> None:
        body = b"<html><h1>nothing to see</h1></html>"
        self.reply(int(self.path.partition("?")[0].split("/")[2]), gzip.compress(body), Content_Encoding="gzip")

    def on_broken_gzip(self) -> None:
        self.reply(403, b"\x1f\x8bnot gzip at all", Content_Encoding="gzip")

    def on_said(self) -> None:
        self.reply(403, b"", X_Error_Message="Access to model x is restricted")

    def on_wrong_range(self) -> None:
        self.reply(206, self.content[5:], Content_Range=f"bytes 5-{len(self.content) - 1}/{len(self.content)}")

    def on_flaky(self) -> None:
        if len([path for path, _, _ in self.seen if path == self.path]) == 1:
            self.reply(503, b"")
        else:
            self.on_file()

    def on_cut(self) -> None:
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-999/{len(self.content)}")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"GG")
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def on_silent(self) -> None:
        threading.Event().wait(5)


@contextlib.contextmanager
def serving(content: bytes, elsewhere: str = "") -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield the server's address and the list of requests it has seen."""
    seen: list[tuple[str, str, str]] = []
    handler = type("Served", (Handler,), {"content": content, "elsewhere": elsewhere, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
