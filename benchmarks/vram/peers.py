"""gguf-parser-go on the same cases, built from its Go module into a cache folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.vram import ggufs
from benchmarks.vram.cases import Case
from labctl.vram.facts import GgufFacts

NAME = "gguf-parser-go v0.26.3"
SOURCE = Path(__file__).parent / "peer"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "labctl-benchmarks"


class MissingPeerError(Exception):
    """The peer could not be built; the message says why."""


def build() -> Path:
    """Build the peer's runner and return its path.

    Raises:
        MissingPeerError: when there is no Go toolchain or the module cannot be had.
    """
    go = shutil.which("go")
    if go is None:
        msg = "there is no Go toolchain (`go`) on this machine"
        raise MissingPeerError(msg)
    folder = CACHE / "peer"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("go.mod", "main.go"):
        shutil.copyfile(SOURCE / name, folder / name)
    binary = folder / "runner"
    steps = [[go, "mod", "tidy"], [go, "build", "-o", str(binary), "."]]
    for step in steps:
        done = subprocess.run(step, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"`{' '.join(step)}` failed: {done.stderr.strip().splitlines()[-1]}"
            raise MissingPeerError(msg)
    return binary


def estimates(cases: Sequence[Case]) -> list[int | None]:
    """The peer's bytes of device memory for each case; None where it gives none.

    Raises:
        MissingPeerError: when the peer cannot be built or fails.
    """
    runner = build()
    paths: dict[int, Path | None] = {}
    lines = []
    for case in cases:
        if id(case.facts) not in paths:
            paths[id(case.facts)] = _written(CACHE / f"{len(paths)}.gguf", case.facts)
        path = paths[id(case.facts)]
        if path is not None:
            lines.append(json.dumps(_request(case, path)))
    done = subprocess.run([str(runner)], input="\n".join(lines), capture_output=True, text=True, check=False)
    answers = [int(line) for line in done.stdout.split()]
    if done.returncode or len(answers) != len(lines):
        msg = f"it stopped after {len(answers)} of {len(lines)} cases: {done.stderr.strip()[:200]}"
        raise MissingPeerError(msg)
    remaining = iter(answers)
    found = [next(remaining) if paths[id(case.facts)] else -1 for case in cases]
    return [answer if answer >= 0 else None for answer in found]


def _written(path: Path, facts: GgufFacts) -> Path | None:
    """Write a header for the peer; None when it has a tensor type that ``ggufs`` cannot write."""
    try:
        ggufs.write(path, facts)
    except KeyError:
        return None
    return path


def _request(case: Case, path: Path) -> dict[str, object]:
    settings = case.settings
    return {
        "path": str(path),
        "context": settings.context,
        "slots": settings.slots,
        "batch": settings.batch,
        "ubatch": settings.ubatch,
        "layers": settings.gpu_layers,
        "key_type": settings.kv_cache_k,
        "flash": settings.flash_attention,
        "full_window": settings.swa_full,
    }
