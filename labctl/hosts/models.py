"""Fetching model files: the host does it itself (``labctl.agent.fetch``); here are addresses, events, diagnostics."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Final

from labctl.agent.call import Refusal
from labctl.artefact import ModelFile
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Emit, HostError, Shell
from labctl.hosts.events import Progress
from labctl.quantity import format_size
from labctl.values import dataclass

HUB: Final = "https://huggingface.co"
HF: Final = "hf://"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What arrived. ``digest`` is None for a linked file whose digest nobody asked for."""

    digest: str | None
    size: int
    mtime: int


def address_of(url: str) -> str:
    """Return the HTTP address of ``hf://org/repo[@revision]/file``; other URLs as they are. HF_ENDPOINT is obeyed."""
    if not url.startswith(HF):
        return url
    org, repo, path = url.removeprefix(HF).split("/", 2)
    repo, _, revision = repo.partition("@")
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    return f"{hub}/{org}/{repo}/resolve/{revision or 'main'}/{urllib.parse.quote(path)}"


def fetch(shell: Shell, model: ModelFile, place: str, emit: Emit, check: Callable[[], None]) -> Fetched:
    """Put a model file in place on a host. HF_TOKEN goes there as data, for ``hf://`` alone.

    Args:
        shell: the host.
        model: what; its ``size`` and ``sha256`` are verified where given.
        place: absolute path; its folder exists.
        emit: is told the progress.
        check: called between chunks; may raise to stop. What was loaded so far is kept for the next time.

    Raises:
        HostError: LAB120 it cannot be had, LAB121 no space, LAB122 it is not what it should be.
    """

    def progress(told: Mapping[str, Any]) -> None:
        emit(Progress(host=model.host, path=model.path, done=told["done"], total=told["total"]))

    token = os.environ.get("HF_TOKEN", "") if model.url.startswith(HF) else ""
    wanted = {"url": address_of(model.url), "place": place, "size": model.size, "sha256": model.sha256, "token": token}
    try:
        told = shell.call("fetch", wanted, event=progress, check=check)
    except Refusal as refusal:
        raise HostError(_problem(model, refusal)) from refusal
    return Fetched(told["digest"], told["size"], told["mtime"])


def remove_parts(shell: Shell, place: str) -> None:
    """Remove what an unfinished download left beside its place."""
    shell.remove([f"{place}.part", f"{place}.part.json"])


def _problem(model: ModelFile, refusal: Refusal) -> Diagnostic:
    path, data = model.origin or None, refusal.data
    match refusal.reason:
        case "no space":
            needs = "" if data["more"] is None else f"it needs {format_size(data['more'])} more, "
            free = f"{format_size(data['free'])} are free"
            summary = f"no space for `{model.path}` on `{model.host}`: {needs}{free}"
            return Diagnostic(code="LAB121", summary=summary, path=path)
        case "wrong":
            summary = f"`{model.url}` is not what it should be: {data['why']}"
            return Diagnostic(code="LAB122", summary=summary, path=path)
        case _:
            summary = f"`{model.host}` cannot have `{model.url}`: {data.get('why', refusal.reason)}"
            hint = "check the address; a gated repository needs the environment variable HF_TOKEN"
            return Diagnostic(code="LAB120", summary=summary, path=path, hint=hint)
