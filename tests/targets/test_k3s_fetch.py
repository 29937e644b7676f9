"""The script that fetches model files: run by a real shell with real curl, against a server on loopback."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from labctl.targets.k3s.storage import SCRIPT, address

BODY = bytes(range(256)) * 4096
SUM = hashlib.sha256(BODY).hexdigest()


@dataclass
class Hub:
    """What was asked; ``cut`` ends the first answer after so many bytes."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    cut: int | None = None


@pytest.fixture
def hub() -> Iterator[Hub]:
    seen = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            seen.asked.append(wanted)
            if self.path != "/model.gguf":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if start >= len(BODY):
                self.send_error(416)
                return
            rest = BODY[start:]
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest if seen.cut is None else rest[: seen.cut])
            seen.cut = None

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    seen.url = f"http://127.0.0.1:{server.server_port}/model.gguf"
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(folder: Path, *files: tuple[str, str, str, str]) -> subprocess.CompletedProcess[str]:
    missing = [p for p in ("curl", "flock", "sha256sum") if shutil.which(p) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} are needed to run the script")
    script = folder.parent / "fetch.sh"
    script.write_text(SCRIPT)
    folder.mkdir(exist_ok=True)
    arguments = [part for file in files for part in file]
    command = ["/bin/sh", "-eu", str(script), str(folder), *arguments]
    environment = {"PATH": "/usr/bin:/bin", "no_proxy": "*"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_a_file_comes_once(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for said in ("done", "there"):
        done = fetch(models, ("org--repo/model.gguf", hub.url, str(len(BODY)), SUM))
        assert done.returncode == 0, done.stderr
        assert done.stderr.rstrip().endswith(said)
    assert (models / "org--repo/model.gguf").read_bytes() == BODY
    assert len(hub.asked) == 1


def test_it_goes_on_where_it_broke_off(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "model.gguf.part").write_bytes(BODY[:1000])
    assert fetch(models, ("model.gguf", hub.url, "", SUM)).returncode == 0
    assert hub.asked == ["bytes=1000-"]
    assert (models / "model.gguf").read_bytes() == BODY


def test_a_broken_connection_fails_and_the_next_run_goes_on(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    hub.cut = 70_000
    done = fetch(models, ("model.gguf", hub.url, str(len(BODY)), SUM))
    if done.returncode:
        assert "cannot be had" in done.stderr
        assert not (models / "model.gguf").exists()
        assert (models / "model.gguf.part").stat().st_size == 70_000
        assert fetch(models, ("model.gguf", hub.url, str(len(BODY)), SUM)).returncode == 0
        assert hub.asked[-1] == "bytes=70000-"
    assert (models / "model.gguf").read_bytes() == BODY


def test_a_whole_part_needs_no_bytes_any_more(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "model.gguf.part").write_bytes(BODY)
    done = fetch(models, ("model.gguf", hub.url, "", SUM))
    assert done.returncode == 0, done.stderr
    assert (models / "model.gguf").read_bytes() == BODY


@pytest.mark.parametrize(("size", "digest"), [("", "0" * 64), ("7", "")])
def test_what_is_wrong_is_thrown_away(size: str, digest: str, hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    done = fetch(models, ("model.gguf", hub.url, size, digest))
    assert done.returncode == 1
    assert "not what it should be" in done.stderr
    assert not [p for p in models.iterdir() if p.suffix != ".lock"]


def test_what_is_there_is_looked_at_closely_once(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "model.gguf").write_bytes(BODY)
    assert fetch(models, ("model.gguf", hub.url, "", SUM)).returncode == 0
    assert hub.asked == []
    (models / "model.gguf").write_bytes(b"another")
    (models / "model.gguf.done").unlink()
    assert fetch(models, ("model.gguf", hub.url, "", SUM)).returncode == 0
    assert (models / "model.gguf").read_bytes() == BODY


def test_a_file_without_an_address_has_to_be_there(tmp_path: Path) -> None:
    done = fetch(tmp_path / "models", ("model.gguf", "", "", ""))
    assert done.returncode == 1
    assert "copy it there" in done.stderr


def test_an_address_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    done = fetch(tmp_path / "models", ("x.gguf", hub.url.replace("model", "other"), "", ""))
    assert done.returncode == 1
    assert "404" in done.stderr
    assert not (tmp_path / "models" / "x.gguf").exists()


def test_several_at_once_fetch_it_once(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    fetch(models)
    file = ("model.gguf", hub.url, str(len(BODY)), SUM)
    threads = [threading.Thread(target=fetch, args=(models, file)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hub.asked) == 1
    assert (models / "model.gguf").read_bytes() == BODY


def test_a_token_is_in_no_argument() -> None:
    assert "Bearer" in SCRIPT
    assert "--header @-" in SCRIPT
    assert '"Authorization' not in SCRIPT


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("hf://org/repo/a b.gguf", "https://huggingface.co/org/repo/resolve/main/a%20b.gguf"),
        ("hf://org/repo@abc/x/y.gguf", "https://huggingface.co/org/repo/resolve/abc/x/y.gguf"),
        ("https://example.org/x.gguf", "https://example.org/x.gguf"),
        ("file:///home/me/x.gguf", None),
        ("", None),
    ],
)
def test_addresses(url: str, wanted: str | None) -> None:
    assert address(url) == wanted
