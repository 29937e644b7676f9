"""What every shell does, whether its agent is here, behind pipes or behind SSH: files, programs, processes, URLs."""

from __future__ import annotations

import errno
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from labctl.hosts.local import sha256, temporary
from labctl.hosts.shell import AgentShell
from labctl.plan.observed import FileType


def test_write_replaces_whole_and_leaves_nothing_beside(shell: AgentShell, tmp_path: Path) -> None:
    path = tmp_path / "f"
    shell.write(str(path), b"one", 0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o640)
    held = path.open("rb")
    shell.write(str(path), b"two", 0o600)
    assert held.read() == b"one"
    held.close()
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_write_is_not_hindered_by_a_killed_one(shell: AgentShell, tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    Path(temporary(path)).write_bytes(b"half")
    shell.write(path, b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f"]
    Path(temporary(path)).write_bytes(b"half")
    shell.remove([path])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_write_keeps_the_owner(shell: AgentShell, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    os.chown(path, 1234, 4321)
    shell.write(str(path), b"two")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_links_are_replaced_and_removed_never_followed(shell: AgentShell, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(target)
    shell.write(str(tmp_path / "a"), b"new")
    shell.remove([str(tmp_path / "b"), str(tmp_path / "not there")])
    assert target.read_bytes() == b"kept"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()


def test_look(shell: AgentShell, tmp_path: Path) -> None:
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.write_bytes(b"x")
    folder.mkdir()
    link.symlink_to("nowhere")
    paths = [str(p) for p in (file, folder, link, tmp_path / "none", file / "below")]
    seen = shell.look(paths, digest=lambda path, _: path.endswith("file"))
    assert {Path(p).name: s.type for p, s in seen.items()} == {
        "file": FileType.FILE,
        "folder": FileType.FOLDER,
        "link": FileType.OTHER,
    }
    assert seen[str(file)].digest == sha256(str(file))


def test_folders(shell: AgentShell, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    assert shell.make_folders(str(deep)) == (str(tmp_path / "a"), str(deep))
    assert shell.make_folders(str(deep)) == ()
    assert not shell.remove_empty(str(tmp_path / "a"))
    assert shell.remove_empty(str(deep))
    assert shell.remove_empty(str(deep))


def test_of_many_that_swap_one_wins(shell: AgentShell, tmp_path: Path) -> None:
    path, won = str(tmp_path / "lock"), list[bool]()
    threads = [
        threading.Thread(target=lambda n=n: won.append(shell.swap(path, None, str(n).encode()))) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 1
    assert not shell.swap(path, b"other", None)
    assert shell.swap(path, Path(path).read_bytes(), None)
    assert not Path(path).exists()


def test_run(shell: AgentShell) -> None:
    assert (
        shell.run(["sh", "-c", "cat; echo $X; pwd; exit 3"], stdin=b"in ", env={"X": "y"}, cwd="/").out == "in y\n/\n"
    )
    assert shell.run(["sh", "-c", "exit 3"]).code == 3
    assert shell.run(["no-such-program"]).code == 127
    assert shell.run(["sleep", "9"], timeout=0.1).code == 124


def test_a_process_is_told_from_its_successor(shell: AgentShell) -> None:
    me = shell.whoami()
    assert shell.alive(me)
    pid, start, boot = me.split(".")
    assert not shell.alive(f"{pid}.{int(start) + 1}.{boot}")
    assert not shell.alive(f"{pid}.{start}.another-boot")
    code = "from labctl.hosts.local import LocalShell; print(LocalShell().whoami())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert not shell.alive(gone)


def test_probe(shell: AgentShell) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503 if self.path == "/busy?x=1" else 204)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert shell.probe(f"{url}/", 2) == 204
        assert shell.probe(f"{url}/busy?x=1", 2) == 503
        server.shutdown()
        thread.join()
    assert shell.probe(f"{url}/", 2) is None


def test_contents_of_every_size_arrive_whole(shell: AgentShell, tmp_path: Path) -> None:
    for size in (0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3_000_001):
        content = os.urandom(size)
        path = tmp_path / str(size)
        shell.write(str(path), content)
        assert path.read_bytes() == content
        assert shell.read(str(path)) == content
    assert shell.read(str(tmp_path / "none")) is None


def test_append_makes_a_private_file(shell: AgentShell, tmp_path: Path) -> None:
    path = tmp_path / "log"
    shell.append(str(path), b"one\n")
    shell.append(str(path), b"two\n")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one\ntwo\n", 0o600)


def test_what_the_system_refuses_is_an_os_error(shell: AgentShell, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        shell.write(str(tmp_path / "none" / "f"), b"")
    assert str(tmp_path / "none") in str(missing.value.filename)
    with pytest.raises(IsADirectoryError):
        shell.read(str(tmp_path))
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectoryError):
        shell.make_folders(str(tmp_path / "f" / "g"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_as_such(shell: AgentShell) -> None:
    with pytest.raises(OSError, match="No space left") as full:
        shell.append("/dev/full", b"x")
    assert full.value.errno == errno.ENOSPC


def test_many_calls_at_once(shell: AgentShell, tmp_path: Path) -> None:
    """A slow call holds nothing up, and no answer goes to somebody else."""
    wrong: list[int] = []

    def work(n: int) -> None:
        content = str(n).encode() * 100_000
        shell.write(str(tmp_path / str(n)), content)
        if shell.read(str(tmp_path / str(n))) != content or shell.run(["echo", str(n)]).out != f"{n}\n":
            wrong.append(n)

    slow = threading.Thread(target=lambda: shell.run(["sleep", "3"]))
    slow.start()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slow.is_alive() or wrong == []
    slow.join()
    assert wrong == []


def test_stream_yields_lines_as_they_come(shell: AgentShell) -> None:
    script = "echo one; printf 'zw\\303\\266lf\\nhalf' ; sleep 0.2; printf ' line'"
    assert list(shell.stream(["sh", "-c", script])) == ["one", "zwölf", "half line"]


def test_a_closed_stream_ends_its_program(shell: AgentShell, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    lines = shell.stream(["sh", "-c", f"echo $$ > {pid}; while :; do echo x; sleep 0.05; done"])
    assert next(lines) == "x"
    lines.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and runs(int(pid.read_text())):
        time.sleep(0.05)
    assert not runs(int(pid.read_text()))


def test_a_program_that_runs_out_of_time_leaves_nothing(shell: AgentShell, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    ran = shell.run(["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"], timeout=1)
    assert ran.code == 124
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and runs(int(pid.read_text())):
        time.sleep(0.05)
    assert not runs(int(pid.read_text()))


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def test_who_works_there(shell: AgentShell) -> None:
    me = shell.me()
    assert me.uid == os.geteuid()
    assert me.home == str(Path.home())
    assert shell.alive(me.process)
    assert shell.whoami() == me.process
