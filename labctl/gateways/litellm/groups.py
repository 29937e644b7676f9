"""Public names and the servers behind them: what LiteLLM calls model groups, deployments and aliases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from labctl.gateways import Linked
from labctl.values import dataclass
from labctl.workload import Endpoint


@dataclass(frozen=True, slots=True)
class Groups:
    """Every public name, once: either with its own servers or as an alias.

    Attributes:
        members: main name → its servers.
        aliases: other name → main name.
    """

    members: Mapping[str, tuple[Linked, ...]]
    aliases: Mapping[str, str]

    def main(self, name: str) -> str:
        """Return the group that a public name stands for; the name itself when it is no alias."""
        return self.aliases.get(name, name)


def group(linked: Sequence[Linked], aliases: Mapping[str, str]) -> Groups:
    """Group servers by public name.

    A name with exactly the servers of an earlier one becomes its alias, so that both count against the same limits.
    ``aliases`` are the user's own; chains of them are followed.
    """
    by_name: dict[str, list[Linked]] = {}
    for link in linked:
        for name in link.endpoint.serves:
            by_name.setdefault(name, []).append(link)
    mains: dict[tuple[Linked, ...], str] = {}
    for name, links in by_name.items():
        mains.setdefault(tuple(links), name)
    found = {name: mains[tuple(links)] for name, links in by_name.items() if mains[tuple(links)] != name}
    members = {name: links for links, name in mains.items()}
    wanted = {alias: resolve(alias, aliases) for alias in aliases if alias not in by_name}
    return Groups(members, found | {alias: found.get(name, name) for alias, name in wanted.items()})


def resolve(name: str, aliases: Mapping[str, str]) -> str:
    """Follow aliases of aliases; a circle ends where it closes."""
    seen = {name}
    while (name := aliases.get(name, name)) not in seen:
        seen.add(name)
    return name


def served(endpoints: Iterable[Endpoint]) -> dict[str, tuple[Endpoint, ...]]:
    """Return public name → endpoints."""
    found: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        for name in endpoint.serves:
            found.setdefault(name, []).append(endpoint)
    return {name: tuple(behind) for name, behind in found.items()}


def share(limit: int | None, servers: int) -> tuple[int | None, ...]:
    """Divide a group's limit over its servers, since LiteLLM counts per server.

    The shares add up to the limit; a limit below the number of servers still gives each of them 1, because a server
    with 0 would refuse everything it is picked for.
    """
    if limit is None:
        return (None,) * servers
    each, more = divmod(limit, servers)
    return tuple(max(1, each + (i < more)) for i in range(servers))
