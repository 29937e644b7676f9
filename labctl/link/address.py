"""Who reaches whom at which address: by name in a private network, else at a published port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from labctl.placed import PlacedHost
from labctl.resolve.hosts import ANY, LOOPBACK
from labctl.workload import Port

ANYWHERE: Final = frozenset({ANY, "::"})
"""Addresses that stand for all of a host's own."""

Networks = Mapping[str, str | None]
"""Host → the private network in which its workloads find each other by name; None where there is none."""


def together(networks: Networks, one: str, other: str) -> bool:
    """Whether workloads of two hosts find each other by name."""
    return networks[one] is not None and networks[one] == networks[other]


def reached(provider: PlacedHost, bind: str, user: PlacedHost) -> str:
    """Return the address at which programs of ``user`` reach what ``provider`` serves at ``bind``."""
    if bind in ANYWHERE:
        return LOOPBACK if provider.name == user.name else provider.address
    return bind


def reachable(provider: PlacedHost, bind: str, user: PlacedHost) -> bool:
    """Whether that works at all: a loopback address, or a host known only as ``localhost``, ends at its own machine."""
    return provider.name == user.name or not is_loopback(reached(provider, bind, user))


def address_of(networks: Networks, provider: PlacedHost, name: str, port: Port, user: PlacedHost) -> str | None:
    """Return ``host:port`` of a workload's port as ``user`` reaches it, None when it cannot."""
    if together(networks, provider.name, user.name):
        return f"{name}:{port.listen}"
    if port.published is None or not reachable(provider, port.bind, user):
        return None
    return f"{in_url(reached(provider, port.bind, user))}:{port.published}"


def is_loopback(address: str) -> bool:
    """Whether an address is only good on its own machine."""
    return address in {"localhost", "::1"} or address.startswith("127.")


def in_url(address: str) -> str:
    """Return an address as it is written in a URL."""
    return f"[{address}]" if ":" in address else address
