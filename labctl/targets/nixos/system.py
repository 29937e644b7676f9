"""The system as a whole: flake.nix, default.nix, every module as a file, and the unit that is the system."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from labctl.artefact import SYSTEM, Activation, File, HostRoot, Manager, SecretFile, Unit
from labctl.emit import nix
from labctl.placed import PlacedHost
from labctl.targets import shared
from labctl.targets.nixos import folder, machine, release, secret
from labctl.targets.nixos.needs import Needs
from labctl.targets.nixos.run import Options
from labctl.targets.nixos.values import arguments, given, override, spread
from labctl.workload import Accelerator

SYSTEMS: Final = {"x86_64": "x86_64-linux", "aarch64": "aarch64-linux"}
STATE_VERSION: Final = "26.05"
"""What a machine counts as installed with unless lab.yaml says it. It never moves, whatever release is the default."""
_INPUTS: Final[Mapping[str, str]] = {
    "agenix": "github:ryantm/agenix",
    "disko": "github:nix-community/disko",
    "sops-nix": "github:Mic92/sops-nix",
}
_MODULES: Final[Mapping[str, str]] = {
    "agenix": "agenix.nixosModules.default",
    "disko": "disko.nixosModules.disko",
    "sops-nix": "sops-nix.nixosModules.sops",
}


def root(host: PlacedHost) -> HostRoot:
    """Return where the host's part of the tree lands, and how it gets a new system."""
    options = host.machine or {}
    build = options.get("build")
    how = Activation(confirm=float(str(options.get("confirm", 60))), build=str(build) if build else None)
    return replace(shared.root(host, Manager.NIXOS), activation=how)


def modules(host: PlacedHost, needs: Needs, services: Options) -> dict[str, Options]:
    """Return every module of the machine by its file's name; ``services`` are those of its workloads."""
    found: dict[str, Options] = {name: body for name, body in machine.modules(host, needs).items() if body}
    if services:
        found["services.nix"] = services
    return {"default.nix": _default(host, needs, sorted(found)), **found}


def items(
    host: PlacedHost, needs: Needs, modules: Mapping[str, Options], files: Sequence[File]
) -> Iterator[File | SecretFile | Unit]:
    """Yield everything of the machine: its modules, ``files`` that they name, its secrets, and the system's unit."""
    files = [*machine.files(host, needs), *files]
    texts = {name: nix.module(arguments(body), body) for name, body in modules.items()}
    written = [_file(host, folder.module(host, name), text) for name, text in texts.items()]
    written.append(_file(host, folder.flake(host), nix.module((), _flake(host, _uses(host)))))
    yield from written
    yield from files
    secrets = list(machine.secrets(host, needs))
    yield from secrets
    yield _unit(host, [*written, *files], secrets)
    yield from machine.units(host, needs, modules)


def _uses(host: PlacedHost) -> list[str]:
    keeper = secret.keeper(host)
    return sorted({*machine.inputs(host), *({keeper} if keeper in _INPUTS else ())})


def _flake(host: PlacedHost, uses: Sequence[str]) -> dict[str, nix.Value]:
    options = host.machine or {}
    of = release.release(str(options.get("release", "26.05")))
    inputs: dict[str, nix.Value] = {"nixpkgs": {"url": f"github:NixOS/nixpkgs/{options.get('revision') or of.branch}"}}
    for name in uses:
        inputs[name] = {"url": _INPUTS[name], "inputs": {"nixpkgs": {"follows": "nixpkgs"}}}
    modules: list[nix.Value] = [nix.PathRef(f"./hosts/{host.name}"), *(nix.Ref(_MODULES[name]) for name in uses)]
    system = nix.Call("nixpkgs.lib.nixosSystem", {"modules": modules})
    return {
        "description": f"{host.name} of lab {host.lab}",
        "inputs": inputs,
        "outputs": nix.Lambda(("nixpkgs", *uses), {"nixosConfigurations": {host.name: system}}),
    }


def _default(host: PlacedHost, needs: Needs, modules: Iterable[str]) -> Options:
    options: Mapping[str, Any] = host.machine or {}
    version = str(options.get("release", "26.05"))
    body: dict[str, nix.Value] = {
        "imports": [nix.PathRef(f"./{name}") for name in modules],
        "networking": {"hostName": host.name},
        "nix": {"settings": {"experimental-features": ["nix-command", "flakes"]}},
        "nixpkgs": given({"hostPlatform": SYSTEMS[host.arch], "config": _config(host, needs)}),
        "system": {
            "stateVersion": nix.Noted(
                str(options.get("state_version") or min(version, STATE_VERSION)),
                "the release that the machine was installed with, not the one it runs: leave it",
            )
        },
    }
    return override(body, spread(options.get("options") or {}))


def _config(host: PlacedHost, needs: Needs) -> dict[str, nix.Value]:
    """Return nixpkgs' configuration: licences by package, and the cards that CUDA programs are compiled for."""
    names = unfree_names(host, needs)
    body = nix.Call("builtins.elem", nix.Call("lib.getName", nix.Ref("pkg")), sorted(names))
    found: dict[str, nix.Value] = {"allowUnfreePredicate": nix.Lambda("pkg", body)} if names else {}
    if machine.licensed(host):
        found["nvidia"] = nix.Noted({"acceptLicense": True}, "this branch of the driver is not built without")
    capabilities = _capabilities(host, needs)
    if capabilities:
        note = "nixpkgs leaves these cards out unless they are asked for"
        found["cudaCapabilities"] = nix.Noted(list(capabilities), note)
    return found


def unfree_names(host: PlacedHost, needs: Needs) -> frozenset[str]:
    """Return the packages without a free licence that the host's modules ask for, and those that lab.yaml adds."""
    more = (host.machine or {}).get("unfree")
    added = frozenset(str(name) for name in more) if isinstance(more, list | tuple) else frozenset[str]()
    return needs.unfree | machine.unfree(host) | added


def _capabilities(host: PlacedHost, needs: Needs) -> tuple[str, ...]:
    of = release.release(str((host.machine or {}).get("release", "26.05")))
    known = frozenset(gpu.capability for gpu in host.gpus if gpu.capability)
    return release.cuda_capabilities(of, known) if Accelerator.CUDA in needs.native else ()


def _file(host: PlacedHost, path: str, text: str) -> File:
    return File(host=host.name, path=path, content=text.encode(), origin=(*host.origin, "nixos"))


def _unit(host: PlacedHost, files: Sequence[File], secrets: Sequence[SecretFile]) -> Unit:
    digest = hashlib.sha256("\n".join(f"{f.path} {f.digest}" for f in sorted(files, key=lambda f: f.path)).encode())
    return Unit(
        host=host.name,
        name=folder.SYSTEM_UNIT,
        id=SYSTEM,
        manager=Manager.NIXOS,
        project=folder.flake(host),
        fingerprint=digest.hexdigest(),
        files=tuple(sorted([*(f.path for f in files), *(s.path for s in secrets)])),
        origin=host.origin,
        description="NixOS",
    )
