"""What a source of models may answer, and what is made of it: redirects, tokens, ranges, other versions, digests."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest

from labctl.agent import fetch as agent
from labctl.hosts.base import HostError
from tests.hosts.test_models import CONTENT, SHA, Quiet, get


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
