"""What labctl remembers of a NixOS host's systems, on that host: the one before it came, and those that it built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import PurePosixPath
from typing import Final

from labctl.hosts.base import Site
from labctl.hosts.nixos_reach import run_script
from labctl.values import dataclass

FOLDER: Final = "nixos"
"""Folder among labctl's own files: the record, and the link to what was built last."""
RECORD: Final = f"{FOLDER}/record.json"
RESULT: Final = f"{FOLDER}/result"
CURRENT: Final = "/run/current-system"
PROFILE: Final = "/nix/var/nix/profiles/system"
ROOTS: Final = "/nix/var/nix/gcroots"
_LOOK: Final = """\
for link in "$1" "$2"; do readlink -f "$link" || echo; done
sha256sum <"$3" 2>/dev/null || echo
cat "$4" 2>/dev/null
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was activated by labctl.

    Attributes:
        before: the system that was active before labctl's first one; where destroying leads back to.
        system: the one that labctl activated last; ``fingerprint``: of its flake; ``lock``: digest of its flake.lock.
        systems: fingerprint → system, of every flake that was built.
    """

    before: str = ""
    system: str = ""
    fingerprint: str = ""
    lock: str = ""
    systems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Systems:
    """The systems of a host as they are now.

    Attributes:
        current: the one that is active.
        default: the one that is booted next time.
        lock: digest of the flake's flake.lock, "" without one.
        record: what labctl remembers, None when it has activated none.
    """

    current: str
    default: str
    lock: str
    record: Record | None


def look(site: Site, project: str) -> Systems:
    """Look at a host's systems in one call. ``project`` is the tree path of flake.nix."""
    arguments = (CURRENT, PROFILE, site.at(lock_of(project)), site.state(RECORD))
    ran = run_script(site.shell, _LOOK, *arguments)
    current, default, lock, *rest = (*ran.out.split("\n", 3), "", "", "")
    return Systems(current=current, default=default, lock=lock.partition(" ")[0], record=_parse(rest[0]))


def lock_of(project: str) -> str:
    """Return the path of the flake.lock beside a flake.nix; Nix writes it, labctl only removes it."""
    return str(PurePosixPath(project).with_name("flake.lock"))


def save(site: Site, record: Record) -> None:
    """Remember; and keep the system before labctl from being collected."""
    site.shell.make_folders(site.state(FOLDER))
    run_script(site.shell, 'ln -sfn -- "$1" "$2"', record.before, _root(site))
    value = {name: getattr(record, name) for name in Record.__slots__}
    site.shell.write(site.state(RECORD), (json.dumps({**value, "systems": dict(record.systems)}) + "\n").encode())


def forget(site: Site, project: str) -> None:
    """Remove all of it, and what Nix left beside the flake."""
    site.shell.remove([site.state(RESULT), _root(site), site.at(lock_of(project)), site.state(RECORD)])
    site.shell.remove_empty(site.state(FOLDER))


def is_system(site: Site, path: str) -> bool:
    """Whether a system is in the store (still)."""
    return run_script(site.shell, '[ -x "$1/bin/switch-to-configuration" ]', path).ok


def _root(site: Site) -> str:
    return f"{ROOTS}/labctl-{PurePosixPath(site.root.state).name}-before"


def _parse(text: str) -> Record | None:
    """Read a record; None when there is none, or when it is damaged: then everything is built and recorded anew."""
    try:
        value = json.loads(text)
        return Record(**{name: value[name] for name in Record.__slots__})
    except (ValueError, KeyError, TypeError):
        return None
