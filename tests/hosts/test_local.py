"""The connection to this machine: files, programs, locks."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labctl.hosts.connect import is_here
from labctl.hosts.local import LocalShell, sha256, temporary
from labctl.plan.observed import FileType

SHELL = LocalShell()


def test_write_replaces_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "f"
    SHELL.write(str(path), b"one", 0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o640)
    held = path.open("rb")
    SHELL.write(str(path), b"two", 0o600)
    assert held.read() == b"one"
    held.close()
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_write_is_not_hindered_by_a_killed_one(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    Path(temporary(path)).write_bytes(b"half")
    SHELL.write(path, b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f"]
    Path(temporary(path)).write_bytes(b"half")
    SHELL.remove([path])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_write_keeps_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    os.chown(path, 1234, 4321)
    SHELL.write(str(path), b"two")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_links_are_replaced_and_removed_never_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(target)
    SHELL.write(str(tmp_path / "a"), b"new")
    SHELL.remove([str(tmp_path / "b"), str(tmp_path / "not there")])
    assert target.read_bytes() == b"kept"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()


def test_look(tmp_path: Path) -> None:
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.write_bytes(b"x")
    folder.mkdir()
    link.symlink_to("nowhere")
    paths = [str(p) for p in (file, folder, link, tmp_path / "none", file / "below")]
    seen = SHELL.look(paths, digest=lambda path, _: path.endswith("file"))
    assert {Path(p).name: s.type for p, s in seen.items()} == {
        "file": FileType.FILE,
        "folder": FileType.FOLDER,
        "link": FileType.OTHER,
    }
    assert seen[str(file)].digest == sha256(str(file))


def test_folders(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    assert SHELL.make_folders(str(deep)) == (str(tmp_path / "a"), str(deep))
    assert SHELL.make_folders(str(deep)) == ()
    assert not SHELL.remove_empty(str(tmp_path / "a"))
    assert SHELL.remove_empty(str(deep))
    assert SHELL.remove_empty(str(deep))


def test_of_many_that_swap_one_wins(tmp_path: Path) -> None:
    path, won = str(tmp_path / "lock"), list[bool]()
    threads = [
        threading.Thread(target=lambda n=n: won.append(SHELL.swap(path, None, str(n).encode()))) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 1
    assert not SHELL.swap(path, b"other", None)
    assert SHELL.swap(path, Path(path).read_bytes(), None)
    assert not Path(path).exists()


def test_run() -> None:
    assert (
        SHELL.run(["sh", "-c", "cat; echo $X; pwd; exit 3"], stdin=b"in ", env={"X": "y"}, cwd="/").out == "in y\n/\n"
    )
    assert SHELL.run(["sh", "-c", "exit 3"]).code == 3
    assert SHELL.run(["no-such-program"]).code == 127
    assert SHELL.run(["sleep", "9"], timeout=0.1).code == 124


def test_a_process_is_told_from_its_successor() -> None:
    me = SHELL.whoami()
    assert SHELL.alive(me)
    pid, start, boot = me.split(".")
    assert not SHELL.alive(f"{pid}.{int(start) + 1}.{boot}")
    assert not SHELL.alive(f"{pid}.{start}.another-boot")
    code = "from labctl.hosts.local import LocalShell; print(LocalShell().whoami())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert not SHELL.alive(gone)


def test_probe() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503 if self.path == "/busy?x=1" else 204)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert SHELL.probe(f"{url}/", 2) == 204
        assert SHELL.probe(f"{url}/busy?x=1", 2) == 503
        server.shutdown()
        thread.join()
    assert SHELL.probe(f"{url}/", 2) is None


def test_this_machine_and_others() -> None:
    assert is_here("localhost")
    assert is_here("127.0.0.1")
    assert is_here("127.0.0.9")
    assert is_here(socket.gethostname())
    assert not is_here("192.0.2.1")
