#!/usr/bin/python
"""Ansible module: check files that wait in a staging folder, then put all of them in place, or none.

Runs on the host. Needs Python 3.9 and nothing of labctl. The bundle is a tar with a ``request.json`` and files below
``tree/``. It is unpacked into the staging folder (0700, made by labctl), where secret files lie already.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import io
import itertools
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

REQUEST, TREE = "request.json", "tree"
KEPT = 4000
"""Characters kept of what a check prints."""


def place(folder: str, bundle: bytes) -> dict[str, Any]:
    """Do what the bundle's request says and remove the staging folder.

    Returns a dictionary:
        stale: the host's lock is no longer the one that the request was made under; nothing was done.
        refused: {"check": index, "code", "out", "err"} of the first check that failed; nothing was done.
        problems: path → why it could not be put in place.
        placed: paths that are in place.
    """
    staging = Path(folder)
    try:
        request = _unpack(staging, bundle)
        for path in request["links"]:
            _link(Path(request["root"], path), staging / TREE / path)
        refused = next(filter(None, itertools.starmap(_check, enumerate(request["checks"]))), None)
        if refused:
            return {"refused": refused, "problems": {}, "placed": []}
        with _locked(request["lock"]) as held:
            if not held:
                return {"stale": True, "problems": {}, "placed": []}
            return _switch(request, staging / TREE)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: it is of use to somebody else
            staging.parent.rmdir()


def _unpack(staging: Path, bundle: bytes) -> Any:
    """Unpack the plain files of the bundle and return the request."""
    with tarfile.open(fileobj=io.BytesIO(bundle)) as packed:
        for member in packed:
            source = packed.extractfile(member)
            if source is None or ".." in member.name.split("/"):
                raise ValueError(member.name)
            place_at = staging / member.name
            place_at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with source, _new(place_at) as file:
                shutil.copyfileobj(source, file)
    return json.loads((staging / REQUEST).read_text(encoding="utf-8"))


def _new(path: Path) -> BinaryIO:
    """Open a new file that its owner only may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _link(real: Path, link: Path) -> None:
    """Let the staged files see one that stays as it is."""
    if os.path.lexists(real) and not os.path.lexists(link):
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        link.symlink_to(real)


def _check(index: int, check: dict[str, Any]) -> dict[str, Any] | None:
    """Run a check; return what it said when it refuses, else None."""
    try:
        ran = subprocess.run(
            check["argv"], stdin=subprocess.DEVNULL, capture_output=True, timeout=check["timeout"], check=False
        )
        code, out, err = ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        code, out, err = 124, "", "no end after {} s".format(check["timeout"])
    except OSError as error:
        code, out, err = 127, "", "{}: {}".format(check["argv"][0], error.strerror)
    if accepts(check["names"], check["ignore"], code, err):
        return None
    return {"check": index, "code": code, "out": out[-KEPT:], "err": err[-KEPT:]}


def accepts(names: Sequence[str], ignore: Sequence[str], code: int, err: str) -> bool:
    """Tell whether a check accepts: by its exit status, or (``names``) by saying nothing that concerns these files."""
    if not names or code in (124, 127):
        return code == 0
    return not complaints(names, ignore, err)


def complaints(names: Sequence[str], ignore: Sequence[str], err: str) -> list[str]:
    """Return the lines that are about one of the names and about nothing that is to be ignored."""
    return [
        line
        for line in err.splitlines()
        if any(name in line for name in names) and not any(text in line for text in ignore)
    ]


@contextlib.contextmanager
def _locked(lock: dict[str, str]) -> Iterator[bool]:
    """Keep the lock from changing hands; tell whether it still is the one that was held."""
    path = Path(lock["path"])
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        yield content == lock["content"]
    finally:
        os.close(folder)


def _switch(request: dict[str, Any], tree: Path) -> dict[str, Any]:
    """Put every file in place in one step each. One that cannot be put there does not stop the others."""
    problems: dict[str, str] = {}
    placed: list[str] = []
    folders: set[Path] = set()
    for entry in request["files"]:
        path = Path(request["root"], entry["path"])
        try:
            _switch_one(tree / entry["path"], path, entry["mode"])
        except OSError as error:
            problems[entry["path"]] = f"{error.filename or path}: {error.strerror or error}"
        else:
            placed.append(entry["path"])
            folders.add(path.parent)
    for folder in sorted(folders):
        _sync(folder)
    return {"problems": problems, "placed": placed}


def _switch_one(source: Path, path: Path, mode: int) -> None:
    """Give a staged file its owner and mode, put it on disk, and let it take the place of the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.lstat() if os.path.lexists(path) else None
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    beside = path.with_name("." + path.name + ".labctl")
    if os.path.lexists(beside):
        beside.unlink()
    _move(source, beside)
    descriptor = os.open(beside, os.O_RDONLY)
    try:
        if old is not None and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    beside.replace(path)


def _move(source: Path, to: Path) -> None:
    try:
        source.rename(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as given, _new(to) as file:
            shutil.copyfileobj(given, file)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """Answer Ansible."""
    from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]  # noqa: PLC0415 - there only

    needed = {"required": True, "type": "str"}
    module = AnsibleModule(argument_spec={"staging": needed, "bundle": {**needed, "no_log": True}})
    try:
        result = place(module.params["staging"], base64.b64decode(module.params["bundle"]))
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
        return
    module.exit_json(changed=bool(result["placed"]), **result)


if __name__ == "__main__":
    main()
