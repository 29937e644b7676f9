"""Model files over a connection: the host downloads, this machine sees how far it is and can stop it."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.artefact import ModelFile
from labctl.hosts.base import HostError, Stopped
from labctl.hosts.events import Event, Progress
from labctl.hosts.models import fetch
from labctl.hosts.shell import AgentShell

CONTENT = os.urandom(1 << 20) * 8
TOKEN = "hf_sentinel_of_this_test"


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one file slowly, and notes who asked with which token, and what was to be seen meanwhile."""

    tokens: list[str]
    seen: list[str]
    pause = 0.0

    def do_GET(self) -> None:
        self.tokens.append(self.headers.get("Authorization", ""))
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        for at in range(start, len(CONTENT), 1 << 20):
            self.wfile.write(CONTENT[at : at + (1 << 20)])
            time.sleep(self.pause)
            self.seen += [str(p) for p in Path("/proc").glob("[0-9]*/cmdline") if TOKEN in _text(p)]

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Minds nobody who hangs up."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    monkeypatch.setattr(Hub, "tokens", [], raising=False)
    monkeypatch.setattr(Hub, "seen", [], raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Hub) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_address[1]}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield Hub
        running.shutdown()
        thread.join()


def model(**facts: str | int) -> ModelFile:
    return ModelFile(host="far", path="m.gguf", url="hf://org/repo/m.gguf", **facts)  # type: ignore[arg-type]


def test_the_host_downloads_and_tells_how_far_it_is(shell: AgentShell, hub: type[Hub], tmp_path: Path) -> None:
    hub.pause = 0.1
    events: list[Event] = []
    fetched = fetch(shell, model(size=len(CONTENT)), str(tmp_path / "m"), events.append, lambda: None)
    assert fetched.digest == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "m").read_bytes() == CONTENT
    done = [e.done for e in events if isinstance(e, Progress)]
    assert len(done) >= 3
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)
    assert hub.tokens == [f"Bearer {TOKEN}"]
    assert hub.seen == [], "a token is data, never an argument"


def test_a_stopped_download_goes_on_where_it_was(shell: AgentShell, hub: type[Hub], tmp_path: Path) -> None:
    hub.pause = 0.2
    events: list[Event] = []

    def stop() -> None:
        if any(isinstance(e, Progress) and e.done > 1 << 20 for e in events):
            raise Stopped

    with pytest.raises(Stopped):
        fetch(shell, model(), str(tmp_path / "m"), events.append, stop)
    part = (tmp_path / "m.part").stat().st_size
    assert 0 < part < len(CONTENT)
    hub.pause = 0
    assert fetch(shell, model(), str(tmp_path / "m"), events.append, lambda: None).size == len(CONTENT)
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_what_the_host_says_becomes_a_diagnostic(shell: AgentShell, hub: type[Hub], tmp_path: Path) -> None:
    hub.pause = 0
    with pytest.raises(HostError, match="LAB122"):
        fetch(shell, model(sha256="0" * 64), str(tmp_path / "m"), lambda _: None, lambda: None)
    absent = ModelFile(host="far", path="m.gguf", url=(tmp_path / "absent").as_uri())
    with pytest.raises(HostError, match=r"LAB120.*`far`.*is not a file"):
        fetch(shell, absent, str(tmp_path / "m"), lambda _: None, lambda: None)
    assert list(tmp_path.iterdir()) == []
