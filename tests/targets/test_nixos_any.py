"""Whatever a lab asks of NixOS: it is refused in words, or Nix evaluates it and the release knows every option."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from labctl.targets.nixos.options import check
from tests.nix import evaluated
from tests.resolve import labs
from tests.targets import nixos_labs as nixos

CARDS = ("RTX 3090", "RTX 3090", "RX 7900 XTX", "P106-100", "RTX 5090", "Arc A770")
KEYS: dict[str, Any] = {
    "memory_limit": "2 GiB",
    "cpus": 2.5,
    "start": "on-demand",
    "env": {"PLAIN": "100% of $HOME, \"quoted\" ''${x}", "TOKEN": {"secret": "TOKEN"}},
    "args": ("--api-prefix", "/a b%n$c"),
}
SERVICES = ("open-webui", "searxng", "monitoring", "phoenix", "postgres", "neo4j")
ABOUT_NIXOS = {"LAB080", "LAB231", "LAB232", "LAB233", "LAB252"}
"""What may be refused of such labs by this target; its own mistakes, LAB230, LAB234 and LAB236, may not happen."""


def deployment(dice: random.Random, card: int) -> dict[str, Any]:
    on = {"host": "box", "gpus": (card,)}
    kinds: list[dict[str, Any]] = [
        {"models": ("tags",), "engine": "ollama"},
        {"model": "llama", "engine": "llama.cpp", "context": 512},
        {"model": "llama", "engine": "llama.cpp", "context": 4096, "mlock": True},
        {"model": "qwen", "engine": "vllm", "vram": "5 GiB", "context": 1024},
        {"engine": "command", "program": "/run/current-system/sw/bin/serve", "vram": {"declared": "1 GiB"}},
        {"engine": "container", "image": "example/server:1.2.3", "vram": {"declared": "1 GiB"}},
    ]
    return {**dice.choice(kinds), "on": on, **{key: value for key, value in KEYS.items() if dice.random() < 0.3}}


def any_lab(seed: int) -> tuple[str, dict[str, Any]]:
    """Return a release and a lab on it."""
    dice = random.Random(seed)  # noqa: S311 - the same labs every time
    release = dice.choice(nixos.RELEASES)
    cards = [dice.choice(CARDS) for _ in range(dice.randint(1, 3))]
    machine = nixos.box(*cards, release=release, secrets=dice.choice(["labctl", "sops-nix", "agenix"]))
    services: dict[str, Any] = {name: {"host": "box"} for name in SERVICES if dice.random() < 0.5}
    if {"open-webui", "postgres"} <= set(services):
        services["open-webui"]["database"] = "postgres"
    gateway = dice.choice(
        [{"gateway": {"engine": "litellm", "host": "box"}}, {"gateway": {"engine": "builtin", "host": "box"}}]
    )
    return release, nixos.lab(
        {f"d{n}": deployment(dice, n) for n in range(len(cards))}, machine, services=services, **gateway
    )


@pytest.mark.parametrize("seed", range(40))
def test_any_lab(seed: int, tmp_path: Path) -> None:
    release, data = any_lab(seed)
    if not labs.taken(data).ok:
        return  # refused before NixOS is asked: a card without a build, a service without its database
    written = labs.written(data)
    if not written.ok:
        codes = {code for code in labs.codes(written) if code[3] == "2" or code == "LAB080"}
        assert codes <= ABOUT_NIXOS
        return
    assert written.value is not None
    flake = nixos.write(written.value, tmp_path)
    assert list(check(evaluated.definitions(flake)["box"], release)) == []


def test_most_of_them_are_rendered() -> None:
    """The test above must not pass because nothing gets that far."""
    done = [labs.taken(data).ok and labs.written(data).ok for _, data in map(any_lab, range(40))]
    assert sum(done) >= 15
