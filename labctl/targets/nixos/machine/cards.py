"""Which driver a host's cards get, from ``data/nixos/cards.toml``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from labctl.compat import gpus as catalogue
from labctl.compat.tables import toml
from labctl.placed import PlacedGpu, PlacedHost
from labctl.values import dataclass

_FILE: Final = "nixos/cards.toml"
_DEFAULT: Final = "production"
"""The branch that NixOS takes by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """NVIDIA's driver for some cards.

    Attributes:
        branch: attribute of ``nvidiaPackages``; None for what NixOS takes by itself.
        instead: what is at that version in releases that are not known to have the branch, None where it is there.
        open: whether it has the open kernel modules.
        unfree: names of its packages without a free licence.
        licensed: whether nixpkgs wants its licence accepted beside that.
    """

    branch: str | None
    instead: str | None
    open: bool
    unfree: frozenset[str]
    licensed: bool


def nvidia(host: PlacedHost) -> list[PlacedGpu]:
    """Return the host's NVIDIA cards."""
    return [gpu for gpu in host.gpus if gpu.vendor == "nvidia"]


def rows(gpus: Iterable[PlacedGpu]) -> list[dict[str, Any]]:
    """Return what the table says of some NVIDIA cards, a row per generation; unknown generations are left out."""
    known = [catalogue.find(gpu.model) for gpu in gpus]
    generations = {facts.architecture for facts in known if facts is not None}
    return [row for row in toml(_FILE)["nvidia"] if row["architecture"] in generations]


def is_tegra(gpu: PlacedGpu) -> bool:
    """Whether it is the GPU of a Jetson, whose driver comes with JetPack."""
    facts = catalogue.find(gpu.model)
    return facts is not None and facts.tegra


def branches(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the branches that drive all of some generations, oldest first."""
    common = [set(row["branches"]) for row in found]
    return [b for b in (found[0]["branches"] if found else ()) if all(b in some for some in common)]


def torn(found: Sequence[dict[str, Any]]) -> bool:
    """Whether no driver is for all of some generations: no common branch, or open modules needed and impossible."""
    kinds = {row["open"] for row in found}
    return bool(found) and (not branches(found) or {"no", "only"} <= kinds)


def driver(host: PlacedHost) -> Driver | None:
    """Return the driver of a host's NVIDIA cards, None without such cards."""
    cards = nvidia(host)
    if not cards:
        return None
    found = rows(cards)
    common = branches(found)
    branch = common[-1] if common else _DEFAULT
    opened = all(row["open"] != "no" for row in found)
    return Driver(
        branch=None if branch == _DEFAULT else branch,
        instead=_instead(branch, str((host.machine or {}).get("release", ""))),
        open=opened,
        unfree=frozenset(next(row["names"] for row in toml(_FILE)["unfree"] if row["open"] is opened)),
        licensed=any(row["branch"] == branch for row in toml(_FILE)["license"]),
    )


def _instead(branch: str, release: str) -> str | None:
    return next((r["instead"] for r in toml(_FILE)["branch"] if r["name"] == branch and release in r["lacking"]), None)


def shared_memory(host: PlacedHost) -> tuple[str, ...]:
    """Return the kernel's parameters for AMD GPUs that share the host's memory; none where there is none."""
    unified = [gpu for gpu in host.gpus if gpu.vendor == "amd" and gpu.unified]
    if not unified:
        return ()
    row = next(r for r in toml(_FILE)["amd"] if r["unified"])
    pages = -(-max(gpu.memory for gpu in unified) // int(row["page"]))
    return tuple(f"{name}={pages}" for name in row["parameters"])
