"""Two services of a host on one port: each module starts its own, and the second one fails at run time only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Final

from labctl.targets.nixos.options import table
from labctl.targets.nixos.options.problem import Kind, Problem
from labctl.targets.nixos.options.view import View
from labctl.values import dataclass

_EVERY: Final = frozenset({"", "0.0.0.0", "::", "[::]", "*"})  # noqa: S104 - what a service listens on
_LOCAL: Final = {"localhost": "127.0.0.1"}
_HOSTS: Final = ("host", "listenAddress", "http_addr", "bind_address", "listenAddresses")
_NOT_TCP: Final = frozenset({("services", "tailscale", "port")})
_PUBLISHED: Final = re.compile(r"(?:(?P<address>[^:]*|\[[^\]]*\]):)?(?P<port>\d+):\d+(?:/tcp)?")
"""A container's published port: ``[ADDRESS:]PORT:INSIDE``, over TCP."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens where; ``path`` is the option that says the port."""

    path: tuple[str, ...]
    owner: str
    address: str
    port: int

    def meets(self, other: Listener) -> bool:
        """Whether both want one port of one address."""
        same = self.address == other.address or bool({self.address, other.address} & {""})
        return self.port == other.port and same


def check(view: View, release: str) -> Iterator[Problem]:
    """Yield a problem for each pair of listeners that exclude each other."""
    for one, two in combinations([*_services(view, release), *_containers(view)], 2):
        if one.meets(two):
            message = f"`{one.owner}` and `{two.owner}` both listen on port {two.port}"
            yield Problem(Kind.CONFLICT, two.path, message, "Give one of them another port")


def _services(view: View, release: str) -> Iterator[Listener]:
    """Yield the enabled services of which the table knows the port."""
    for option in table.options():
        if option.type.name != "port" or not option.exists_in(release) or option.path in _NOT_TCP:
            continue
        service = option.path[: next((n for n, name in enumerate(option.path) if name == "settings"), -1)]
        if table.NAME in service or not view.true(".".join((*service, "enable"))):
            continue
        port = view.at(*option.path)
        number = port if isinstance(port, int) else int(option.default or 0)
        if number:
            yield Listener(option.path, ".".join(service), _address(view, option.path[:-1], release), number)


def _address(view: View, beside: tuple[str, ...], release: str) -> str:
    """Return the address of the service whose port is defined beside it, empty for every address."""
    for option in table.options():
        if option.path[:-1] == beside and option.path[-1] in _HOSTS and option.exists_in(release):
            found = view.at(*option.path)
            return _plain(found if isinstance(found, str) else option.default)
    return ""


def _plain(address: str) -> str:
    return "" if address in _EVERY else _LOCAL.get(address, address)


def _containers(view: View) -> Iterator[Listener]:
    where = ("virtualisation", "oci-containers", "containers")
    for name in view.names(".".join(where)):
        own = View(view.at(*where, name))
        for text in own.items("ports"):
            if found := _PUBLISHED.fullmatch(str(text)):
                yield Listener((*where, name, "ports"), name, _plain(found["address"] or ""), int(found["port"]))
