"""Files and folders: looked at, read, replaced in one step, removed. Paths are absolute."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable

from labctl.agent.call import Call, Reply, answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHUNK = 1 << 20


def read(call: Call) -> Reply:
    """Return the content of ``path`` as the body; ``there`` is False when there is no such file."""
    content = content_of(call.values["path"])
    return answer(there=content is not None, body=content or b"")


def write(call: Call) -> Reply:
    """Replace ``path`` by the body, with ``mode``."""
    put(call.values["path"], call.body, call.values["mode"])
    return answer()


def append(call: Call) -> Reply:
    """Add the body to the end of ``path`` in one write."""
    file = os.open(call.values["path"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, call.body)
    finally:
        os.close(file)
    return answer()


def look(call: Call) -> Reply:
    """Look at ``paths``, hashing those of ``digest`` that are files; absent ones are left out of ``found``."""
    wanted = set(call.values["digest"])
    found = {}
    for path in call.values["paths"]:
        call.check()
        seen = seen_at(path)
        if seen is not None:
            if path in wanted and seen["type"] == "file":
                seen["digest"] = sha256(path, call)
            found[path] = seen
    return answer(found=found)


def remove(call: Call) -> Reply:
    """Remove ``paths``, and what a killed write may have left beside them."""
    drop(call.values["paths"])
    return answer()


def make_folders(call: Call) -> Reply:
    """Make ``path`` and its missing parents; return those that were ``made``, outermost first."""
    folder, missing = call.values["path"], list[str]()
    while not os.path.isdir(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    for name in missing:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name)
    return answer(made=missing)


def remove_empty(call: Call) -> Reply:
    """Remove the folder ``path`` if it is empty; tell whether it is ``gone``."""
    try:
        os.rmdir(call.values["path"])
    except FileNotFoundError:
        return answer(gone=True)
    except OSError:
        return answer(gone=False)
    return answer(gone=True)


def swap(call: Call) -> Reply:
    """Compare and replace ``path`` while holding the operating system's lock on its folder.

    The body is the expected content (``expected`` bytes, None for an absent file), then the new one (``content``
    bytes, None to remove it).
    """
    path, expected, content = call.values["path"], call.values["expected"], call.values["content"]
    length = expected or 0
    old = None if expected is None else call.body[:length]
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if content_of(path) != old:
            return answer(swapped=False)
        if content is None:
            drop([path])
        else:
            put(path, call.body[length:], 0o644)
        return answer(swapped=True)
    finally:
        os.close(folder)


def free(call: Call) -> Reply:
    """Return the free ``bytes`` of the file system that holds ``path`` or its nearest existing parent."""
    folder = call.values["path"]
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    found = os.statvfs(folder)
    return answer(bytes=found.f_bavail * found.f_frsize)


def temporary(path: str) -> str:
    """Return the name under which a file is written before it is renamed: fixed, so that a killed run leaves one."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.labctl")


def content_of(path: str) -> bytes | None:
    """Return a file's content, None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def put(path: str, content: bytes, mode: int) -> None:
    """Write beside, flush to disk, rename. The mode is set before there is content, so no secret is ever open."""
    beside = temporary(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _keep_owner(file.fileno(), path)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if error.errno in {errno.ENOSPC, errno.EDQUOT} and error.filename is None:
            raise OSError(error.errno, error.strerror, path) from error
        raise
    os.replace(beside, path)
    sync_folder(os.path.dirname(path))


def drop(paths: Iterable[str]) -> None:
    """Remove files (and links, never what they point to), and what a killed write may have left beside them."""
    for path in paths:
        for name in (path, temporary(path)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(name)


def sync_folder(folder: str) -> None:
    """Make renames inside a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: str, call: Call | None = None) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            if call is not None:
                call.check()
            digest.update(chunk)
    return digest.hexdigest()


def seen_at(path: str) -> dict[str, Any] | None:
    """Return what a path is, None when it is nothing."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = "other"
    if stat.S_ISREG(found.st_mode):
        kind = "file"
    elif stat.S_ISDIR(found.st_mode):
        kind = "folder"
    return {"type": kind, "mode": stat.S_IMODE(found.st_mode), "size": found.st_size, "mtime": found.st_mtime_ns}


def _keep_owner(descriptor: int, path: str) -> None:
    """Give a new file the owner of the one that it replaces, where that may be done."""
    try:
        old = os.lstat(path)
    except OSError:
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
