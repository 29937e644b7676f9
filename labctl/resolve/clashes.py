"""Names and files that two parts of a lab claim, and images for engines that do not exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from labctl.diagnostics import At, Diagnostic, DocPath, Related
from labctl.engines import ENGINES
from labctl.gateways import GATEWAYS, WORKLOAD
from labctl.model.artefacts import Model
from labctl.model.lab import Lab
from labctl.model.unknown import unknown_name
from labctl.placed import Server
from labctl.resolve.models import file_name, parts
from labctl.services import COMING as COMING_SERVICES
from labctl.services import SERVICES
from labctl.targets.power import NAME as POWER

_OWN: Final = {WORKLOAD: "the gateway", POWER: "the unit that limits the cards' power"}
"""Names of what labctl runs itself."""


def name_clashes(lab: Lab, servers: Sequence[Server]) -> Iterator[Diagnostic]:
    """Yield a problem for each server whose name is another workload's: deployments are numbered by card.

    That two keys of lab.yaml are equal is found where references are checked.
    """
    taken: dict[str, tuple[str, DocPath]] = {name: ("service", ("services", name)) for name in lab.services}
    taken |= {name: (what, ("gateway",) if name == WORKLOAD else ("hosts",)) for name, what in _OWN.items()}
    for server in sorted(servers, key=lambda s: (s.name != s.deployment, s.name, s.deployment)):
        _, path = taken.setdefault(server.name, (server.deployment, server.origin))
        if path != server.origin and (server.name != server.deployment or server.name == POWER):
            yield Diagnostic(
                code="LAB054",
                summary=f"a server of `{server.deployment}` is called `{server.name}`, and so is something else",
                path=server.origin,
                at=At.KEY,
                hint="rename one of them",
                related=(Related("the other one", path),),
            )


def file_clashes(models: Mapping[str, Model], servers: Iterable[Server]) -> Iterator[Diagnostic]:
    """Yield a problem for each file of a models folder that two models on one host fetch from different places."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    said: set[tuple[str, str]] = set()
    for server in sorted(servers, key=lambda s: s.name):
        for name in (m.name for m in server.models):
            for key, source in _sources(models[name]):
                for part in parts(source):
                    owner, other = first.setdefault((server.host.name, file_name(part)), (name, part))
                    if other != part and (owner, name) not in said:
                        said.add((owner, name))
                        yield _same_file(owner, name, key, file_name(part), server.host.name)


def _sources(model: Model) -> Iterator[tuple[str, str]]:
    for key, source in (("gguf", model.gguf), ("projector", model.projector)):
        if source is not None:
            yield key, source


def _same_file(owner: str, name: str, key: str, file: str, host: str) -> Diagnostic:
    return Diagnostic(
        code="LAB055",
        summary=f"models `{owner}` and `{name}` would both be `{file}` in the models folder of `{host}`",
        path=("models", name, key),
        hint="rename the file at one of its sources, or put it into the folder yourself under another name",
        related=(Related("the other one", ("models", owner)),),
    )


def check_images(lab: Lab) -> Iterator[Diagnostic]:
    """Yield a problem for each image that replaces the one of no engine, gateway or service."""
    known = {*ENGINES, *GATEWAYS, *SERVICES, *COMING_SERVICES} - {"container", "command"}
    for name in lab.images.replace:
        if name not in known:
            path = ("images", "replace", name)
            yield unknown_name("LAB056", "engine, gateway or service", name, known, path, key=True)
