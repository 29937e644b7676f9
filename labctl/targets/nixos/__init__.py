"""Target ``nixos``: a lab as NixOS modules, in a flake on each host.

What a workload becomes, by what it is (``Workload.product``) and what forms it has:

==================================  ====================================================================================
LiteLLM, Ollama, Open WebUI,        the module that NixOS has for it: ``services.litellm`` …
Prometheus, Grafana, SearXNG …
the only llama.cpp of a host        ``services.llama-cpp``
several of one engine, commands     a service of its own, ``systemd.services.…``, hardened as on target ``systemd``
anything else with a container      ``virtualisation.oci-containers``, with Docker
==================================  ====================================================================================

==============  ========================================================================================================
``run``         a workload on its way, and what it becomes
``products``    one adapter per product
``program``     a service of its own; ``container``: a container; ``unit``: what holds for both and for modules' units
``services``    all workloads of a host → ``services.nix``
``needs``       what they ask of the machine
``machine``     the machine itself → ``hardware.nix``, ``gpu.nix``, ``networking.nix`` …
``system``      ``flake.nix``, ``default.nix``, and the system as a unit
``secret``      secret files, outside the store
``release``     what differs between releases
``options``     NixOS' own options, to check what is rendered
``check``       what the target cannot be told, said before rendering
==============  ========================================================================================================

Units: one per workload, its ``id`` the systemd unit, and one for the system, after which all of them start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from labctl.artefact import File, Item, Manager, ModelFile, Unit
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.placed import PlacedHost, Places
from labctl.targets import shared
from labctl.targets.nixos import check, folder, machine, services, system, unit
from labctl.targets.nixos.needs import Needs, needs, on_host
from labctl.targets.nixos.run import Ran
from labctl.workload import Capability, Container, Control, Native, Workload


class Nixos:
    """Modules for a machine that is described as a whole; nothing is installed beside them."""

    name = "nixos"
    by_name = False
    accepts = frozenset(Capability) - {Capability.OWN_PYTHON, Capability.REPLICAS}

    def network(self, host: PlacedHost) -> str | None:  # noqa: ARG002 - part of the protocol
        """There is none: everything shares the host's ports."""
        return None

    def control(self, host: PlacedHost, name: str) -> Control | None:
        """Through systemctl, with a rule of polkit's, by a name that each controlled unit also has."""
        return Control("systemd", unit.alias(host.lab, name))

    def places(self, lab: str, options: Mapping[str, object], models: str | None) -> Places:  # noqa: ARG002
        """Return the folders: the flake under /etc, what must not be in the store under /var/lib."""
        return Places(
            root="/",
            config=f"etc/labctl/{lab}",
            state=f"var/lib/labctl/{lab}",
            models=models or "/var/lib/labctl/models",
        )

    def remarks(self, host: PlacedHost, workloads: Sequence[Workload]) -> Iterable[Diagnostic]:
        """Return what the machine cannot be, and what is worth knowing about it."""
        try:
            _, asked = self._planned(host, workloads)
        except LabctlError:  # said when it is rendered
            asked = Needs()
        return (*machine.problems(host, asked), *machine.warnings(host, asked))

    def _planned(self, host: PlacedHost, workloads: Sequence[Workload]) -> tuple[list[Ran], Needs]:
        of = services.ran(host, _formed(self, workloads))
        return of, needs(host, [(r.run.workload, _as_run(r)) for r in of], [n for r in of for n in r.made.unfree])

    def render(
        self, host: PlacedHost, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[Item]:
        """Return the host's flake, its secrets, its models, and its units.

        Raises:
            LabctlError: LAB080 for what NixOS cannot run, LAB084 for what it cannot be told, LAB230 and following for
                what its modules cannot express.
        """
        of, asked = self._planned(host, workloads)
        body = services.module(of)
        modules = system.modules(host, asked, body)
        check.check(host, asked, of, modules)
        yield system.root(host)
        yield from models
        files = [file for r in of for file in _files(r)]
        yield from system.items(host, asked, modules, files)
        for r in of:
            yield from r.artefacts
            yield _unit(r, models)


def _formed(target: Nixos, workloads: Iterable[Workload]) -> list[tuple[Workload, Container | Native]]:
    """Return the workloads with the form that is run where there is no module for them."""
    chosen: list[tuple[Workload, Container | Native]] = [
        *shared.formed(workloads, target, Container),
        *((w, f) for w, f in shared.formed(workloads, target, Native)),
    ]
    return sorted(chosen, key=lambda pair: pair[0].name)


def _as_run(of: Ran) -> Container | Native:
    """Return the form as the machine sees it: what a module runs is a program of the host."""
    if of.made.module and isinstance(of.made.form, Container):
        return Native(program="")
    return of.made.form


def _files(of: Ran) -> Iterator[File]:
    workload, host = of.run.workload, of.run.host
    for file in of.made.files:
        yield File(
            host=host.name,
            path=services.file_path(host, workload, file.name),
            content=file.content.encode(),
            mode=file.mode,
            origin=workload.origin,
        )


def _unit(of: Ran, models: Sequence[ModelFile | File]) -> Unit:
    host, workload, made = of.run.host, of.run.workload, of.made
    text = repr(of.options)
    paths = [*(a.path for a in of.artefacts), *shared.model_paths(host, workload, models)]
    health = workload.health
    port = on_host(workload.port(health.port), _as_run(of)) if health and health.path is not None else None
    found = shared.unit(
        host,
        workload,
        Manager.NIXOS,
        name=made.unit,
        project=folder.flake(host),
        fingerprint=hashlib.sha256(f"{shared.fingerprint(workload, text)}".encode()).hexdigest(),
        files=paths,
        port=port,
    )
    if health is not None and made.health:
        found = replace(found, health=replace(health, command=made.health))
    after = (folder.SYSTEM_UNIT, *found.after)
    return replace(found, after=after, image=None)


target = Nixos()
