"""What differs between NixOS releases, from ``data/nixos/releases.toml``."""

from __future__ import annotations

from typing import Any, Final

from labctl.compat.tables import toml
from labctl.emit import nix
from labctl.values import dataclass
from labctl.workload import Accelerator

_FILE: Final = "nixos/releases.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release.

    Attributes:
        name: ``26.05``; branch: of nixpkgs.
        ollama: ``acceleration`` or ``package``: what says how Ollama drives cards.
        llama_cpp: ``flags`` or ``settings``: how ``services.llama-cpp`` takes arguments.
        llama_cpp_lacks: flags of labctl's that its llama.cpp is too old for, and behaves without as they say.
        grafana_secret_key: whether Grafana's key has to be stated.
        litellm_runtime: whether LiteLLM's package has what its callbacks import.
        cuda: the CUDA that programs are built with.
    """

    name: str
    branch: str
    ollama: str
    llama_cpp: str
    grafana_secret_key: bool
    litellm_runtime: bool
    llama_cpp_lacks: tuple[str, ...] = ()
    cuda: str


def _row(table: str, key: str, value: str) -> dict[str, Any] | None:
    return next((row for row in toml(_FILE)[table] if row[key] == value), None)


def release(name: str) -> Release:
    """Return a release; KeyError for one that the table does not have."""
    row = _row("release", "release", name)
    if row is None:
        raise KeyError(name)
    known: dict[str, Any] = {key: value for key, value in row.items() if key not in {"release", "source"}}
    lacks = tuple(str(flag) for flag in known.pop("llama_cpp_lacks", ()))
    return Release(name=name, llama_cpp_lacks=lacks, **known)


def cuda_capabilities(of: Release, capabilities: frozenset[str]) -> tuple[str, ...]:
    """Return what ``cudaCapabilities`` has to be for cards with these; empty where nixpkgs' own choice has them all."""
    row = _row("cuda", "cuda", of.cuda) or {"default": []}
    return () if capabilities <= set(row["default"]) else tuple(sorted(capabilities, key=_version))


def _version(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def package(product: str, accelerator: Accelerator | None) -> nix.Ref | nix.Call:
    """Return the package of a product for one way to drive cards; KeyError when nixpkgs has none."""
    row = _row("package", "product", product)
    if row is None:
        raise KeyError(product)
    way = accelerator or "cpu"
    attribute = str(row[way])
    argument = row.get(f"{way}_override")
    return nix.Call(f"pkgs.{attribute}.override", {argument: True}) if argument else nix.Ref(f"pkgs.{attribute}")


def program(product: str) -> str:
    """Return the name of a product's server program in its package."""
    row = _row("package", "product", product)
    return str(row["program"]) if row else product


def unfree(of: str) -> frozenset[str]:
    """Return the names of packages without a free licence that a product or accelerator brings; empty for none."""
    row = _row("unfree", "of", of)
    return frozenset(row["names"]) if row else frozenset()


def libraries(product: str) -> tuple[str, ...]:
    """Return the Python libraries of a product that comes along as sources; empty for none."""
    row = _row("python", "product", product)
    return tuple(row["packages"]) if row else ()


def callback_libraries(callback: str) -> tuple[str, ...]:
    """Return the Python libraries that one of LiteLLM's callbacks imports; empty for none that is known."""
    row = _row("callback", "callback", callback)
    return tuple(row["packages"]) if row else ()
