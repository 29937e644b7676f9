"""Fetching model files from a real HTTP server on loopback: whole, resumed, damaged, refused."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

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


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with what a test has laid ready, first come first served."""

    ready: ClassVar[list[Callable[[Answers], None]]] = []
    asked: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        self.ready.pop(0)(self)

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        sent = {"Content-Length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        for name, value in sent.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    """Says nothing of those who have heard enough and hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(agent, "PAUSE", 0.01)
    monkeypatch.setattr(Answers, "ready", [])
    monkeypatch.setattr(Answers, "asked", [])
    with Quiet(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def get(url: str, place: Path, **facts: str | int) -> str | None:
    return fetch(HERE, model(url, **facts), str(place), nothing, lambda: None).digest


def test_the_token_goes_to_the_hub_alone(answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub sends readers on to a store of its own: within the Hub with the token, elsewhere without."""
    elsewhere = answers.replace("127.0.0.1", "localhost")
    Answers.ready += [
        lambda a: a.say(307, Location="/renamed/repo"),
        lambda a: a.say(302, Location=f"{elsewhere}/store"),
        lambda a: a.say(200, CONTENT),
    ]
    monkeypatch.setenv("HF_ENDPOINT", answers)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert get("hf://org/repo/m.gguf", tmp_path / "m") == SHA
    seen = [(path, headers.get("Authorization")) for path, headers in Answers.asked]
    assert seen == [
        ("/org/repo/resolve/main/m.gguf", "Bearer hf_secret"),
        ("/renamed/repo", "Bearer hf_secret"),
        ("/store", None),
    ]


def test_other_addresses_never_see_the_token(answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    Answers.ready += [lambda a: a.say(200, CONTENT)]
    get(f"{answers}/m.gguf", tmp_path / "m")
    assert "Authorization" not in Answers.asked[0][1]


def test_the_hubs_word_on_a_digest_is_checked(answers: str, tmp_path: Path) -> None:
    for announced, code in ((SHA, None), ("0" * 64, "LAB122")):
        Answers.ready += [
            partial(Answers.say, status=302, Location="/store", X_Linked_Etag=f'"{announced}"'),
            lambda a: a.say(200, CONTENT),
        ]
        with contextlib.nullcontext() if code is None else pytest.raises(HostError, match=code):
            get(f"{answers}/m.gguf", tmp_path / "m")


def test_a_length_that_is_not_the_pinned_one_is_refused_before_it_is_loaded(answers: str, tmp_path: Path) -> None:
    def lie(a: Answers) -> None:
        a.send_response(200)
        a.send_header("Content-Length", str(1 << 40))
        a.end_headers()

    Answers.ready += [lie]
    with pytest.raises(HostError, match=f"LAB122.*it has {1 << 40} bytes"):
        get(f"{answers}/m.gguf", tmp_path / "m", size=len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_a_rest_that_begins_elsewhere_is_not_appended(answers: str, tmp_path: Path) -> None:
    half = len(CONTENT) // 2
    rest = {"ETag": '"v1"', "Content_Range": f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"}
    Answers.ready += [
        lambda a: a.say(200, CONTENT[:half], ETag='"v1"', Content_Length=str(len(CONTENT))),
        lambda a: a.say(206, CONTENT[7:], **rest),
        lambda a: a.say(200, CONTENT, ETag='"v1"'),
    ]
    assert get(f"{answers}/m.gguf", tmp_path / "m") == SHA
    assert [h.get("Range") for _, h in Answers.asked] == [None, f"bytes={half}-", None]


def test_a_rest_of_another_version_is_loaded_anew_once(answers: str, tmp_path: Path) -> None:
    """The server answers with the rest of another file and says nothing of it; the digest does."""
    half = len(CONTENT) // 2
    rest = f"bytes {half}-{len(CONTENT) - 1}/{len(CONTENT)}"
    Answers.ready += [
        lambda a: a.say(200, b"x" * half, Content_Length=str(len(CONTENT))),
        lambda a: a.say(206, CONTENT[half:], Content_Range=rest),
        lambda a: a.say(200, CONTENT),
    ]
    assert get(f"{answers}/m.gguf", tmp_path / "m", sha256=SHA) == SHA


def test_as_long_as_something_new_arrives_it_goes_on(answers: str, tmp_path: Path) -> None:
    """Twelve broken connections: more than five attempts, and each brings a piece."""
    piece = len(CONTENT) // 12 + 1

    def part(a: Answers) -> None:
        start = int(a.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        length, whole = str(len(CONTENT) - start), f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        more = {"Content_Range": whole} if start else {}
        a.say(206 if start else 200, CONTENT[start : start + piece], ETag='"v1"', Content_Length=length, **more)

    Answers.ready += [part] * 12
    assert get(f"{answers}/m.gguf", tmp_path / "m") == SHA
    assert len(Answers.asked) == 12


def test_what_cannot_succeed_is_not_tried_again(answers: str, tmp_path: Path) -> None:
    for status in (401, 403, 404, 410, 451, 501):
        Answers.ready += [partial(Answers.say, status=status)]
        with pytest.raises(HostError, match=rf"LAB120.*{status}"):
            get(f"{answers}/m.gguf", tmp_path / "m")
    assert len(Answers.asked) == 6
    with pytest.raises(HostError, match="LAB120"):
        get("http://no-such-host.invalid/m.gguf", tmp_path / "m")
    Answers.ready += [lambda a: a.say(302, Location="file:///etc/passwd")]
    with pytest.raises(HostError, match="LAB120"):
        get(f"{answers}/m.gguf", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_two_that_want_one_place_get_one_download(answers: str, tmp_path: Path) -> None:
    """As two labs with one models folder do, each from a process of its own."""
    asked, go = threading.Event(), threading.Event()

    def slow(a: Answers) -> None:
        asked.set()
        go.wait(10)
        a.say(200, CONTENT)

    Answers.ready += [slow]
    found: list[str | None] = []
    pool = [threading.Thread(target=lambda: found.append(get(f"{answers}/m.gguf", tmp_path / "m"))) for _ in range(2)]
    pool[0].start()
    assert asked.wait(10)
    pool[1].start()
    time.sleep(0.3)
    go.set()
    for thread in pool:
        thread.join(10)
    assert len(Answers.asked) == 1
    assert len(found) == 2
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_full_disk_is_no_retry(answers: str, tmp_path: Path) -> None:
    """/dev/full stands for a disk on which no more can be written, as ``statvfs`` did not foresee."""
    part = tmp_path / "m.part"
    real = open

    def full(path: Any, *rest: Any, **more: Any) -> Any:
        return real("/dev/full" if str(path) == str(part) and "b" in str(rest) else path, *rest, **more)

    Answers.ready += [lambda a: a.say(200, CONTENT)]
    with mock.patch("builtins.open", full), pytest.raises(HostError, match="LAB121"):
        get(f"{answers}/m.gguf", tmp_path / "m")
    assert len(Answers.asked) == 1


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
