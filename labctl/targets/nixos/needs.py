"""What the workloads of a host ask of the machine itself: the contract between the two parts of this target.

``machine`` turns it into the host's modules; ``system`` writes them. The node of a cluster with a ``nixos`` block has
the same modules (``node``); what it needs follows from its cards and from the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from labctl.placed import PlacedHost
from labctl.values import dataclass
from labctl.workload import Accelerator, Container, Native, Port, Workload

LOOPBACK: Final = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A TCP port that other machines reach: the firewall has to let it through.

    Attributes:
        port: its number on the host.
        bind: the address that it is bound to: an address of the host, ``0.0.0.0`` or ``::``; never a loopback one.
        who: the workload.
        container: published by Docker, whose own rules let it through whatever the firewall says.
    """

    port: int
    bind: str
    who: str
    container: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What a machine is to the Kubernetes cluster that it is a node of.

    Attributes:
        name: what Kubernetes calls it.
        server: address of the server that it joins as an agent, ``https://…:6443``; None for the server itself.
        token: name of the secret that nodes join with.
        disable: components of k3s that are not installed.
        others: whether the cluster has other nodes.
        runtime: whether one of its nodes has NVIDIA cards.
        registries: k3s' configuration of mirrors, None for none.
    """

    name: str
    server: str | None = None
    token: str | None = None
    disable: tuple[str, ...] = ()
    others: bool = False
    runtime: bool = False
    registries: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the machine has to offer.

    Attributes:
        openings: ports for other machines, by number.
        containers: whether Docker runs containers.
        native: how programs of the host drive its cards; empty when none does.
        contained: vendors of the cards that containers use: ``nvidia``, ``amd``, ``intel``.
        unfree: names of packages without a free licence that the modules name beside the machine's own
            (``lib.getName``).
        node: what it is to a cluster, None when it is no node.
    """

    openings: tuple[Opening, ...] = ()
    containers: bool = False
    native: frozenset[Accelerator] = frozenset()
    contained: frozenset[str] = frozenset()
    unfree: frozenset[str] = frozenset()
    node: Node | None = None


def needs(host: PlacedHost, chosen: Sequence[tuple[Workload, Container | Native]], unfree: Iterable[str] = ()) -> Needs:
    """Return what these workloads, in these forms, ask of their host."""
    vendors = {gpu.index: gpu.vendor for gpu in host.gpus}
    claims = [(form, workload.gpu) for workload, form in chosen if workload.gpu is not None]
    return Needs(
        openings=tuple(sorted(set(_openings(chosen)), key=lambda o: (o.port, o.bind, o.who))),
        containers=any(isinstance(form, Container) for _, form in chosen),
        native=frozenset(claim.accelerator for form, claim in claims if isinstance(form, Native)),
        contained=frozenset(
            vendors.get(device.index, "nvidia")
            for form, claim in claims
            if isinstance(form, Container)
            for device in claim.devices
        ),
        unfree=frozenset(unfree),
    )


def _openings(chosen: Iterable[tuple[Workload, Container | Native]]) -> Iterator[Opening]:
    for workload, form in chosen:
        for port in workload.ports:
            number = on_host(port, form)
            if number is not None and not port.bind.startswith(LOOPBACK):
                yield Opening(port=number, bind=port.bind, who=workload.name, container=isinstance(form, Container))


def on_host(port: Port, form: Container | Native) -> int | None:
    """Return a port's number on the host, None for a container's that is not published."""
    return port.published if isinstance(form, Container) else port.published or port.listen
