"""What hosts and clusters remember of ``labctl switch``: a small file on each host of the group."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Final

from labctl.artefact import HostRoot, Tree
from labctl.hosts.backend import backend_of
from labctl.hosts.base import HostError
from labctl.hosts.connect import connect
from labctl.hosts.state import TURNS
from labctl.plan.turns import Turn

AT_ONCE: Final = 8
"""Hosts asked at the same time."""


def roots_of(tree: Tree, groups: Iterable[str]) -> tuple[HostRoot, ...]:
    """Return the roots that members of exclusive groups run on."""
    wanted = frozenset(groups)
    hosts = {unit.host for unit in tree.units if unit.turns in wanted}
    return tuple(root for name, root in tree.roots.items() if name in hosts)


def read_turns(roots: Sequence[HostRoot]) -> tuple[Turn, ...]:
    """Return every switch that is remembered. A host that cannot be asked remembers nothing: plan says why."""
    if not roots:
        return ()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(turn for found in pool.map(_read, roots) for turn in found)


def write_turns(roots: Sequence[HostRoot], groups: Iterable[str], turns: Iterable[Turn]) -> None:
    """Let hosts remember what holds for these groups, and nothing else. HostError, OSError where one cannot."""
    mine, keep = frozenset(groups), tuple(turns)
    for root in roots:
        other = tuple(turn for turn in _read(root) if turn.group not in mine)
        _write(root, (*other, *(turn for turn in keep if turn.group in mine)))


def _read(root: HostRoot) -> tuple[Turn, ...]:
    backend = backend_of(root)
    with contextlib.suppress(HostError, OSError):
        if backend is not None:
            return _parse(backend.note(root))
        site = connect(root)
        return _parse(site.shell.read(site.state(TURNS)))
    return ()


def _write(root: HostRoot, turns: Sequence[Turn]) -> None:
    backend = backend_of(root)
    if backend is not None:
        backend.leave_note(root, to_json(turns) if turns else None)
        return
    site = connect(root)
    if turns:
        site.shell.make_folders(site.state("").rstrip("/"))
        site.shell.write(site.state(TURNS), to_json(turns), 0o644)
    else:
        site.shell.remove([site.state(TURNS)])


def to_json(turns: Iterable[Turn]) -> bytes:
    """Return the text in which switches are remembered."""
    return (json.dumps([asdict(turn) for turn in turns], indent=1, ensure_ascii=False) + "\n").encode()


def _parse(content: bytes | None) -> tuple[Turn, ...]:
    """Read that text; nothing is remembered by one that is damaged."""
    with contextlib.suppress(ValueError, TypeError):
        return tuple(Turn(**{key: str(text) for key, text in value.items()}) for value in json.loads(content or b"[]"))
    return ()
