"""Generations: what a host was after an apply that went well, kept on that host, to go back to.

A generation is the host's part of the tree as a value, and copies of its secret files, readable by their owner only.
Going back is planning and applying that tree.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from labctl.artefact import Artefact, File, HostRoot, Image, ModelFile, SecretFile, Tree, TreeError, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, Site
from labctl.hosts.state import read_manifest
from labctl.plan.observed import SecretDigests
from labctl.values import dataclass

GENERATIONS: Final = "generations"
"""Folder among labctl's own files."""
KEEP: Final = 3
VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a host was.

    Attributes:
        number: counts up, per host.
        at: when the apply ended, ISO 8601.
        lab, lab_digest: the lab, and a digest of its document.
        tree: the host's part of the tree.
        digests: path of each secret file → its keyed digest.
        copies: path of each secret file → name of its copy, in the generation's folder.
    """

    number: int
    at: str
    lab: str
    lab_digest: str
    tree: Tree
    digests: Mapping[str, str]
    copies: Mapping[str, str]

    def secret_digests(self, host: str) -> SecretDigests:
        """Return the secret files' digests as plans are made from."""
        return {(host, path): digest for path, digest in self.digests.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What a host has kept: oldest first, and which of them it is; 0 after an apply that did not go well."""

    generations: tuple[Generation, ...] = ()
    current: int = 0

    def chosen(self, number: int | None = None) -> Generation | None:
        """Return a generation; without a number the one before the current one, the newest where there is none."""
        if number is not None:
            return next((g for g in self.generations if g.number == number), None)
        earlier = [g for g in self.generations if not self.current or g.number < self.current]
        return earlier[-1] if earlier else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where a generation's secret files are: path → copy, an absolute path on the host."""

    copies: Mapping[str, str]

    @classmethod
    def of(cls, site: Site, generation: Generation) -> Kept:
        """Return where a host keeps them."""
        folder = _folder(site, generation.number)
        return cls(copies={path: f"{folder}/{name}" for path, name in generation.copies.items()})

    def content(self, site: Site, path: str) -> bytes:
        """Return what the host keeps of a secret file. HostError (LAB109) when the copy is gone."""
        copy = self.copies.get(path)
        content = site.shell.read(copy) if copy is not None else None
        if content is None:
            summary = f"the copy of `{path}` is not among the files of that generation any more"
            raise HostError(Diagnostic(code="LAB109", summary=summary))
        return content


def numbers(site: Site) -> tuple[int, ...]:
    """Return the numbers of the generations that a host has, oldest first."""
    folder = site.state(GENERATIONS)
    if not site.shell.look([folder], digest=lambda *_: False):
        return ()
    names = site.shell.run(["ls", "-1", "--", folder]).out.split()
    found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return tuple(sorted(int(name) for name in found if name.isdecimal()))


def read(site: Site, number: int) -> Generation:
    """Return a generation. HostError (LAB128) when there is none of that number, or it cannot be read."""
    text = site.shell.read(_file(site, number))
    if text is None:
        summary = f"`{site.host}` has no generation {number}"
        known = ", ".join(str(n) for n in numbers(site)) or "none"
        raise HostError(Diagnostic(code="LAB128", summary=summary, hint=f"it has: {known}"))
    try:
        return _from_json(text)
    except (ValueError, KeyError, TypeError, TreeError, ValidationError) as error:
        summary = f"generation {number} of `{site.host}` cannot be read"
        detail = str(error).splitlines()[0]
        raise HostError(Diagnostic(code="LAB128", summary=summary, detail=detail)) from error


def overview(site: Site) -> Overview:
    """Return what a host has kept. HostError when something of it cannot be read."""
    current = read_manifest(site).generation
    return Overview(generations=tuple(read(site, number) for number in numbers(site)), current=current)


def keep(site: Site, tree: Tree, digests: SecretDigests, *, lab: str, lab_digest: str) -> int:
    """Keep what a host is now as its newest generation, drop all but the last ``KEEP``, and return its number."""
    known = numbers(site)
    number = max(known, default=0) + 1
    folder = _folder(site, number)
    site.shell.run(["rm", "-rf", "--", folder])
    _make(site, site.state(GENERATIONS))
    _make(site, folder)
    secrets = [a for a in tree.artefacts if isinstance(a, SecretFile)]
    copies = {secret.path: f"secret-{index}" for index, secret in enumerate(secrets)}
    for path, name in copies.items():
        content = site.shell.read(site.at(path))
        if content is not None:
            site.shell.write(f"{folder}/{name}", content, 0o600)
    generation = Generation(
        number=number,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        lab=lab,
        lab_digest=lab_digest,
        tree=tree,
        digests={path: digest for (host, path), digest in digests.items() if host == site.host},
        copies=copies,
    )
    site.shell.write(_file(site, number), _to_json(generation), 0o600)
    for old in known[: max(0, len(known) + 1 - KEEP)]:
        drop(site, old)
    return number


def drop(site: Site, number: int) -> None:
    """Remove a generation."""
    site.shell.remove([_file(site, number)])
    site.shell.run(["rm", "-rf", "--", _folder(site, number)])


def drop_all(site: Site) -> None:
    """Remove every generation, when nothing of the lab is left."""
    folder = site.state(GENERATIONS)
    if site.shell.look([folder], digest=lambda *_: False):
        site.shell.run(["rm", "-rf", "--", folder])


def _make(site: Site, folder: str) -> None:
    if not site.shell.look([folder], digest=lambda *_: False):
        ran = site.shell.run(["mkdir", "-m", "0700", "--", folder])
        if not ran.ok:
            summary = f"`{site.host}` cannot keep what it is now to go back to"
            raise HostError(Diagnostic(code="LAB129", summary=summary, detail=ran.tail()))


def _folder(site: Site, number: int) -> str:
    return site.state(f"{GENERATIONS}/{number}")


def _file(site: Site, number: int) -> str:
    return site.state(f"{GENERATIONS}/{number}.json")


_Plain = SecretFile | ModelFile | Image | Unit | HostRoot
_KINDS: Final[Mapping[str, type[_Plain]]] = {
    "secrets": SecretFile,
    "models": ModelFile,
    "images": Image,
    "units": Unit,
    "roots": HostRoot,
}


@cache
def _adapter(kind: str) -> TypeAdapter[list[_Plain]]:
    """Return pydantic's reader and writer of one kind of things."""
    return TypeAdapter(list[_KINDS[kind]])  # type: ignore[valid-type]  # a type that is a value


def _to_json(generation: Generation) -> bytes:
    tree = generation.tree
    held: tuple[Artefact | Image | Unit | HostRoot, ...] = (
        *tree.artefacts,
        *tree.images,
        *tree.units,
        *tree.roots.values(),
    )
    value: dict[str, Any] = {
        "version": VERSION,
        "number": generation.number,
        "at": generation.at,
        "lab": generation.lab,
        "lab_digest": generation.lab_digest,
        "digests": dict(generation.digests),
        "copies": dict(generation.copies),
        "files": [_file_value(f) for f in tree.files()],
    }
    for kind, type_ in _KINDS.items():
        value[kind] = _adapter(kind).dump_python([i for i in held if isinstance(i, type_)], mode="json")
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _from_json(text: bytes) -> Generation:
    value = json.loads(text)
    if value["version"] > VERSION:
        message = f"it was written by a later labctl (format {value['version']})"
        raise ValueError(message)
    items: list[Any] = [_file_of(f) for f in value["files"]]
    for kind in _KINDS:
        items += _adapter(kind).validate_python(value[kind])
    return Generation(
        number=value["number"],
        at=value["at"],
        lab=value["lab"],
        lab_digest=value["lab_digest"],
        tree=Tree.of(items),
        digests=value["digests"],
        copies=value["copies"],
    )


def _file_value(file: File) -> dict[str, Any]:
    try:
        content = {"text": file.content.decode()}
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(file.content).decode()}
    return {"host": file.host, "path": file.path, "mode": file.mode, "origin": list(file.origin), **content}


def _file_of(value: Mapping[str, Any]) -> File:
    content = value["text"].encode() if "text" in value else base64.b64decode(value["base64"])
    return File(
        host=value["host"], path=value["path"], mode=value["mode"], origin=tuple(value["origin"]), content=content
    )
