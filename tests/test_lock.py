"""``labctl lock`` against real HTTP servers on loopback, and what its file is worth afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from labctl.diagnostics import LabctlError
from labctl.lockfile import NAME, read_lock
from labctl.locking import LockReport, lock_lab
from labctl.tiny import embedding, scripted
from labctl.usecases import Loaded, load

HEADER = scripted("a real header")
DIGEST = hashlib.sha256(HEADER).hexdigest()
TOKEN = "hf_" + "x" * 20


class Hub(BaseHTTPRequestHandler):
    """Answers like the Hub: HEAD of a file is a redirect with its size and digest, GET leads to another origin."""

    protocol_version = "HTTP/1.1"
    store: ClassVar[str] = ""
    seen: ClassVar[list[tuple[str, str, str]]] = []

    def log_message(self, *_: object) -> None: ...

    def _note(self) -> None:
        self.seen.append((self.command, self.path, self.headers.get("Authorization", "")))

    def _reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    def do_HEAD(self) -> None:
        self._note()
        if "missing" in self.path:
            self._reply(404)
        elif "plain" in self.path:
            self._reply(302, Location=f"{self.store}{self.path}")
        else:
            size, tag = str(len(HEADER)), f'"{DIGEST}"'
            self._reply(302, Location=f"{self.store}/blob", X_Linked_Size=size, X_Linked_Etag=tag)

    def do_GET(self) -> None:
        self._note()
        self._reply(404) if "missing" in self.path else self._reply(302, Location=f"{self.store}/blob")


class Store(Hub):
    """Where the Hub's redirects lead: another origin, which must not see the token."""

    def do_HEAD(self) -> None:
        self._note()
        self._reply(200, Content_Length=str(len(HEADER)))

    def do_GET(self) -> None:
        self._note()
        match = re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", ""))
        assert match is not None
        begin, end = int(match[1]), min(int(match[2]) + 1, len(HEADER))
        self._reply(206, HEADER[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{len(HEADER)}")


Seen = list[tuple[str, str, str]]


@contextlib.contextmanager
def serving(kind: type[Hub], store: str = "") -> Iterator[tuple[str, Seen]]:
    seen: Seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (kind,), {"store": store, "seen": seen}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Seen, Seen]]:
    """Yield the requests that a hub and its store have seen."""
    with serving(Store) as (store, behind), serving(Hub, store) as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield asked, behind


def lab(folder: Path, **models: Any) -> Path:
    """Write a lab whose models all run on the local target."""
    data = {
        "lab": "locked",
        "hosts": {"here": {"target": "local", "local": {"dir": str(folder / "root")}}},
        "models": models,
        "deployments": {
            n: {"model": n, "engine": "llama.cpp", "flavour": "embedded", "on": {"host": "here"}} for n in models
        },
    }
    (folder / "lab.yaml").write_text(yaml.safe_dump(data))
    return folder


def lock(folder: Path, *, update: bool = False) -> LockReport:
    return lock_lab(load(folder), update=update, say=lambda _: None)


def codes(loaded: Loaded) -> list[str]:
    return [d.code for d in loaded.diagnostics]


ODD = {"gguf": "hf://someone/odd-GGUF/odd-model.gguf"}


def test_the_hub_is_asked_once_and_the_token_stays_with_it(tmp_path: Path, hub: tuple[Seen, Seen]) -> None:
    asked, behind = hub
    folder = lab(tmp_path, odd={**ODD, "revision": "abc"})
    assert lock(folder).read == ("odd",)
    assert {auth for _, _, auth in asked} == {f"Bearer {TOKEN}"}
    assert {path for _, path, _ in asked} == {"/someone/odd-GGUF/resolve/abc/odd-model.gguf"}
    assert {auth for _, _, auth in behind} == {""}
    assert TOKEN not in (folder / NAME).read_text()
    asked.clear()
    assert lock(folder).kept == ("odd",)
    assert asked == []
    assert lock(folder, update=True).read == ("odd",)


@pytest.mark.usefixtures("hub")
def test_what_is_locked_is_rendered_and_exact(tmp_path: Path) -> None:
    folder = lab(tmp_path, odd=ODD)
    assert "LAB069" not in codes(load(folder))
    lock(folder)
    loaded = load(folder)
    (file,) = [a for a in loaded.need_rendered().tree.artefacts if a.path.endswith("odd-model.gguf")]
    assert (getattr(file, "size", None), getattr(file, "sha256", None)) == (len(HEADER), DIGEST)
    assert loaded.need_placed().ledger.footprints["odd"].exact


def test_redirects_of_other_servers_are_followed_for_the_size(tmp_path: Path, hub: tuple[Seen, Seen]) -> None:
    folder = lab(tmp_path, odd={"gguf": "hf://someone/plain-GGUF/plain.gguf"})
    lock(folder)
    (entry,) = read_lock(folder).models.values()
    (facts,) = entry.known.files.values()
    assert (facts.size, facts.sha256) == (len(HEADER), None)
    assert {auth for _, _, auth in hub[1]} == {""}


@pytest.mark.usefixtures("hub")
def test_one_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = lab(tmp_path, bad={"gguf": "hf://someone/missing/x.gguf"}, odd=ODD)
    report = lock(folder)
    assert not report.ok
    assert report.read == ("odd",)
    (problem,) = [d for d in report.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB146", ("models", "bad"))
    assert problem.span is not None
    assert set(read_lock(folder).models) == {"odd"}


@pytest.mark.usefixtures("hub")
def test_an_update_that_fails_keeps_what_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lab(tmp_path, odd=ODD)
    lock(folder)
    before = (folder / NAME).read_text()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    report = lock(folder, update=True)
    assert not report.ok
    assert report.kept == ("odd",)
    assert (folder / NAME).read_text() == before


def test_files_of_this_machine_are_digested(tmp_path: Path) -> None:
    away, inside = tmp_path / "away.gguf", tmp_path / "root" / "models" / "inside.gguf"
    inside.parent.mkdir(parents=True)
    away.write_bytes(HEADER)
    inside.write_bytes(embedding(dimensions=8))
    folder = lab(tmp_path, away={"gguf": str(away)}, inside={"gguf": "inside.gguf"}, url={"gguf": f"file://{away}"})
    report = lock(folder)
    assert report.ok, report.diagnostics
    files = {n: next(iter(e.known.files.values())) for n, e in read_lock(folder).models.items()}
    assert files["away"].sha256 == files["url"].sha256 == DIGEST
    assert files["inside"].size == inside.stat().st_size


def test_a_file_that_nobody_has(tmp_path: Path) -> None:
    report = lock(lab(tmp_path, odd={"gguf": "not-there.gguf"}))
    (problem,) = report.diagnostics
    assert "on no machine that can be asked from here" in problem.summary


@pytest.mark.usefixtures("hub")
def test_an_entry_of_another_source_is_not_used(tmp_path: Path) -> None:
    folder = lab(tmp_path, odd=ODD)
    lock(folder)
    lab(tmp_path, odd={"gguf": "hf://someone/odd-GGUF/other.gguf"})
    loaded = load(folder)
    assert "LAB144" in codes(loaded)
    assert loaded.ok
    assert loaded.need_placed().known["odd"].gguf is None
    assert lock(folder).read == ("odd",)
    assert "LAB144" not in codes(load(folder))


@pytest.mark.usefixtures("hub")
def test_what_the_lab_no_longer_has_is_forgotten(tmp_path: Path) -> None:
    folder = lab(tmp_path, odd=ODD, more=ODD)
    lock(folder)
    lab(tmp_path, odd=ODD)
    assert lock(folder).removed == ("more",)
    assert set(read_lock(folder).models) == {"odd"}


DAMAGED = {
    "not yaml": "models: [",
    "not a mapping": "- 1",
    "nothing": "",
    "another version": "version: 99\nmodels: {}",
    "no version": "models: {}",
    "an entry without a source": "version: 1\nmodels: {odd: {}}",
    "facts that are none": "version: 1\nmodels: {odd: {source: x, facts: {kind: gguf}}}",
    "an impossible date": "version: 1\nmodels: {odd: 2026-99-99}",
    "deep": "version: 1\nmodels: " + "[" * 5000 + "]" * 5000,
}


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_error_and_can_be_made_anew(tmp_path: Path, text: str) -> None:
    folder = lab(tmp_path, odd=ODD)
    (folder / NAME).write_text(text)
    with pytest.raises(LabctlError) as caught:
        read_lock(folder)
    assert [d.code for d in caught.value.diagnostics] == ["LAB145"]
    assert "LAB145" in codes(load(folder))
    assert lock(folder).read == ("odd",)
    assert "LAB145" not in codes(load(folder))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabctlError):
        read_lock(tmp_path)


@pytest.mark.usefixtures("hub")
def test_a_locked_lab_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lab(tmp_path, odd=ODD)
    lock(folder)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load(folder).need_rendered().tree.units
