"""The connection to this very machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import shutil
import stat
import subprocess
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from labctl.hosts.base import Ran
from labctl.plan.observed import FileType, SeenFile

CHUNK: Final = 1 << 20
NOT_FOUND: Final = 127
TIMED_OUT: Final = 124


def temporary(path: str) -> str:
    """Return the name under which a file is written before it is renamed: fixed, so that a killed run leaves one."""
    pure = Path(path)
    return str(pure.with_name(f".{pure.name}.labctl"))


class LocalShell:
    """``Shell`` for this machine: the operating system's own calls."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        """Run a program in a session of its own: Ctrl-C reaches labctl, which stops between steps, and not it."""
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                timeout=timeout,
                check=False,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return Ran(TIMED_OUT, "", f"{argv[0]}: no end after {timeout:g} s")
        except OSError as error:
            return Ran(NOT_FOUND, "", f"{argv[0]}: {error.strerror}")
        return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """Yield lines; closing the iterator ends the program."""
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
        ) as process:
            try:
                for line in process.stdout or ():
                    yield line.rstrip("\n")
            finally:
                process.terminate()

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write beside, flush to disk, rename. The mode is set before there is content, so no secret is ever open."""
        beside = temporary(path)
        Path(beside).unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _keep_owner(file.fileno(), path)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
        sync_folder(Path(path).parent)

    def append(self, path: str, content: bytes) -> None:
        """Add to a file's end in one write."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
            file.write(content)

    def look(self, paths: Iterable[str], *, digest: Callable[[str, SeenFile], bool]) -> Mapping[str, SeenFile]:
        """Look at many paths."""
        found: dict[str, SeenFile] = {}
        for path in paths:
            seen = _look(path)
            if seen is None:
                continue
            if seen.type is FileType.FILE and digest(path, seen):
                seen = replace(seen, digest=sha256(path))
            found[path] = seen
        return found

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, and what a killed write may have left beside them."""
        for path in paths:
            for name in (path, temporary(path)):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    Path(name).unlink()

    def make_folders(self, path: str) -> tuple[str, ...]:
        """Make missing folders."""
        folder, missing = Path(path), list[Path]()
        while not folder.is_dir():
            missing.insert(0, folder)
            folder = folder.parent
        for name in missing:
            name.mkdir(exist_ok=True)
        return tuple(str(name) for name in missing)

    def remove_empty(self, path: str) -> bool:
        """Remove an empty folder."""
        try:
            Path(path).rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def swap(self, path: str, expected: bytes | None, content: bytes | None) -> bool:
        """Compare and replace while holding an operating-system lock on the folder."""
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if self.read(path) != expected:
                return False
            if content is None:
                self.remove([path])
            else:
                self.write(path, content, 0o644)
            return True
        finally:
            os.close(folder)

    def alive(self, process: str) -> bool:
        """Whether a process of this name runs: same boot, same number, same start."""
        return process == _name_of(process.partition(".")[0])

    def whoami(self) -> str:
        """Return this process's number, start time and the machine's boot id."""
        return _name_of(str(os.getpid())) or str(os.getpid())

    def probe(self, url: str, timeout: float) -> int | None:
        """Ask with GET, without proxies and without following redirects."""
        parts = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "localhost", parts.port, timeout=timeout)
        try:
            connection.request("GET", parts._replace(scheme="", netloc="").geturl() or "/")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def free_bytes(self, path: str) -> int:
        """Return the free space of the file system that holds a folder."""
        folder = Path(path)
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def sha256(path: str) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_owner(descriptor: int, path: str) -> None:
    """Give a new file the owner of the one that it replaces, where that may be done."""
    try:
        old = Path(path).lstat()
    except OSError:
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)


def _look(path: str) -> SeenFile | None:
    try:
        found = Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = FileType.OTHER
    if stat.S_ISREG(found.st_mode):
        kind = FileType.FILE
    elif stat.S_ISDIR(found.st_mode):
        kind = FileType.FOLDER
    return SeenFile(type=kind, mode=stat.S_IMODE(found.st_mode), size=found.st_size, mtime=found.st_mtime_ns)


def _name_of(pid: str) -> str | None:
    """Return ``pid.start.boot`` of a running process, None when there is none of that number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else f"{pid}.{fields[19]}.{boot}"
