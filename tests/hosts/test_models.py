"""Fetching model files from a real HTTP server on loopback: whole, resumed, damaged, refused."""

from __future__ import annotations

import hashlib
import http.server
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labctl.agent import fetch as agent
from labctl.artefact import HostRoot, ModelFile, Tree
from labctl.hosts import fleet
from labctl.hosts.base import HostError, Stopped
from labctl.hosts.events import Event, Progress
from labctl.hosts.local import LocalShell
from labctl.hosts.models import address_of, fetch
from labctl.plan.diff import diff
from labctl.plan.model import Action, Reason
from labctl.secrets import Secrets

CONTENT = bytes(range(256)) * 20_000
HERE = LocalShell()
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What it serves, and what it was asked."""

    content: bytes = CONTENT
    etag: str = '"v1"'
    breaks: list[int] = field(default_factory=list)
    """After how many bytes each coming answer breaks off."""
    status: int = 200
    asked: list[str] = field(default_factory=list)
    """The Range header of each request, "" for none."""
    url: str = ""


class Quiet(http.server.ThreadingHTTPServer):
    """Says nothing of those who have heard enough and hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append(wanted)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if self.headers.get("If-Range", state.etag) != state.etag:
                start = 0
            rest = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.breaks.pop(0)] if state.breaks else rest)

        def log_message(self, *_: object) -> None:
            pass

    running = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_address[1]}/m.gguf"
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


def model(url: str, **facts: str | int) -> ModelFile:
    return ModelFile(host="desk", path="models/m.gguf", url=url, **facts)  # type: ignore[arg-type]


def nothing(_: Event) -> None:
    pass


def test_a_whole_file(server: Server, tmp_path: Path) -> None:
    events: list[Event] = []
    fetched = fetch(
        HERE, model(server.url, sha256=SHA, size=len(CONTENT)), str(tmp_path / "m"), events.append, lambda: None
    )
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert (fetched.digest, fetched.size) == (SHA, len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    last = events[-1]
    assert isinstance(last, Progress)
    assert (last.done, last.total) == (len(CONTENT), len(CONTENT))


def test_a_broken_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.breaks = [1_000_000, 2_000_000]
    fetch(HERE, model(server.url, sha256=SHA), str(tmp_path / "m"), nothing, lambda: None)
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000000-", "bytes=3000000-"]


def test_a_stopped_download_is_resumed_by_the_next_apply(server: Server, tmp_path: Path) -> None:
    looks = 0

    def stop() -> None:
        nonlocal looks
        looks += 1
        if looks > 2:
            raise Stopped

    with pytest.raises(Stopped):
        fetch(HERE, model(server.url), str(tmp_path / "m"), nothing, stop)
    part = (tmp_path / "m.part").stat().st_size
    assert 0 < part < len(CONTENT)
    assert not (tmp_path / "m").exists()
    assert fetch(HERE, model(server.url), str(tmp_path / "m"), nothing, lambda: None).digest == SHA
    assert server.asked[-1] == f"bytes={part}-"


def test_two_versions_are_never_glued_together(server: Server, tmp_path: Path) -> None:
    server.breaks = [1_000_000]
    server.status = 200
    with pytest.raises(Stopped):
        fetch(HERE, model(server.url), str(tmp_path / "m"), nothing, _stop_after(3))
    server.content, server.etag = CONTENT[::-1], '"v2"'
    fetch(HERE, model(server.url), str(tmp_path / "m"), nothing, lambda: None)
    assert (tmp_path / "m").read_bytes() == CONTENT[::-1]


def _stop_after(looks: int) -> Callable[[], None]:
    left = [looks]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped

    return check


def test_a_wrong_digest_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="LAB122"):
        fetch(HERE, model(server.url, sha256="0" * 64), str(tmp_path / "m"), nothing, lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="LAB122"):
        fetch(HERE, model(server.url, size=7), str(tmp_path / "m"), nothing, lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(HostError, match=r"LAB120.*404"):
        fetch(HERE, model(server.url), str(tmp_path / "m"), nothing, lambda: None)
    assert server.asked == [""]


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "ATTEMPTS", 2)
    server.status = 503
    with pytest.raises(HostError, match=r"LAB120.*503"):
        fetch(HERE, model(server.url), str(tmp_path / "m"), nothing, lambda: None)
    assert server.asked == ["", ""]


def test_no_space(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "RESERVE", 1 << 60)
    with pytest.raises(HostError, match="LAB121"):
        fetch(HERE, model(server.url), str(tmp_path / "m"), nothing, lambda: None)
    assert not (tmp_path / "m").exists()


def test_a_local_file_is_linked(tmp_path: Path) -> None:
    source = tmp_path / "with space.gguf"
    source.write_bytes(CONTENT)
    fetched = fetch(HERE, model(source.as_uri(), sha256=SHA), str(tmp_path / "m"), nothing, lambda: None)
    assert (tmp_path / "m").samefile(source)
    assert fetched.digest == SHA


def test_a_local_file_is_copied_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    fetch(HERE, model(source.as_uri(), sha256=SHA), str(tmp_path / "m"), nothing, lambda: None)
    assert not (tmp_path / "m").samefile(source)
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_hub_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert address_of("hf://org/repo/a/b c.gguf") == "https://huggingface.co/org/repo/resolve/main/a/b%20c.gguf"
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror/")
    assert address_of("hf://org/repo@v1/x") == "http://mirror/org/repo/resolve/v1/x"


def test_one_source_is_loaded_once_and_never_again(server: Server, tmp_path: Path) -> None:
    """Two places of one source: one download; afterwards not even the digest is computed again."""
    paths = ("models/a.gguf", "models/b.gguf")
    tree = Tree.of(
        [
            HostRoot(host="desk", root=str(tmp_path / "r"), state="state", managers=()),
            *(ModelFile(host="desk", path=p, url=server.url, sha256=SHA) for p in paths),
        ]
    )

    def plan() -> list[tuple[str, Action, Reason]]:
        return [(c.name, c.action, c.reason) for c in diff(tree, fleet.observe(tree)).changes]

    first = diff(tree, fleet.observe(tree))
    assert fleet.apply(first, tree, Secrets(), nothing).ok
    assert server.asked == [""]
    assert {a for _, a, _ in plan()} == {Action.NOOP}
    (tmp_path / "r" / paths[0]).unlink()
    (tmp_path / "r" / paths[0]).write_bytes(b"damaged")
    assert plan()[0] == (paths[0], Action.UPDATE, Reason.MODEL_CORRUPT)
    assert fleet.apply(diff(tree, fleet.observe(tree)), tree, Secrets(), nothing).ok
    assert (tmp_path / "r" / paths[0]).read_bytes() == CONTENT


def get(url: str, place: Path, **facts: str | int) -> str | None:
    return fetch(HERE, model(url, **facts), str(place), nothing, lambda: None).digest


def test_everybody_may_read_a_model_whatever_the_umask(server: Server, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        get(server.url, tmp_path / "m")
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o644


def test_a_part_that_is_a_link_is_never_written_to(server: Server, tmp_path: Path) -> None:
    """A source must not be damaged by what was left of linking it."""
    source = tmp_path / "source.gguf"
    source.write_bytes(b"precious")
    (tmp_path / "m.part").hardlink_to(source)
    assert get(server.url, tmp_path / "m") == SHA
    assert source.read_bytes() == b"precious"


def test_a_disk_that_others_fill_meanwhile_is_left_with_a_reserve(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "REPORT_EVERY", 0)

    def fill(_: Event) -> None:
        monkeypatch.setattr(agent, "RESERVE", 1 << 60)

    with pytest.raises(HostError, match=r"LAB121.*it needs .* more"):
        fetch(HERE, model(server.url), str(tmp_path / "m"), fill, lambda: None)
    monkeypatch.setattr(agent, "RESERVE", 0)
    assert 0 < (tmp_path / "m.part").stat().st_size < len(CONTENT)
    assert get(server.url, tmp_path / "m") == SHA
    assert server.asked[-1].startswith("bytes=")
