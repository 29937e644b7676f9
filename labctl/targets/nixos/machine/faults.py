"""What a NixOS machine cannot be, and what would let in whom nobody means to: said before anything is rendered."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.diagnostics import At, Diagnostic, Severity
from labctl.placed import PlacedHost
from labctl.targets.nixos.machine import cards, network, tailscale
from labctl.targets.nixos.needs import Needs


def problems(host: PlacedHost) -> Iterator[Diagnostic]:
    """Yield what the machine cannot be: no root file system, no boot loader, cards that no driver is for."""
    yield from _disk(host)
    yield from _cards(host)


def _disk(host: PlacedHost) -> Iterator[Diagnostic]:
    options = host.machine or {}
    path = (*host.origin, "nixos")
    if options.get("disk") and options.get("hardware"):
        yield Diagnostic(
            code="LAB251",
            summary=f"`disk` lays out the disk of `{host.name}`, and `hardware` says what is on it",
            path=(*path, "hardware"),
            hint="keep `disk` for a machine that labctl's flake installed, `hardware` for one that was there",
        )
    elif not options.get("disk") and not options.get("hardware"):
        yield Diagnostic(
            code="LAB250",
            summary=f"nothing says where the root file system of `{host.name}` is",
            path=path,
            at=At.KEY,
            hint="copy /etc/nixos/hardware-configuration.nix of the machine beside lab.yaml: "
            "`nixos: {hardware: hardware-configuration.nix, boot: uefi}`; for a first install: `nixos: {disk: /dev/…}`",
        )
    elif options.get("hardware") and not options.get("boot"):
        yield Diagnostic(
            code="LAB250",
            summary=f"nothing says how `{host.name}` boots",
            path=(*path, "hardware"),
            hint="add `boot: uefi`, or the disk with the boot record: `boot: /dev/sda`; "
            "where the file itself says it: `boot: given`",
        )


def _cards(host: PlacedHost) -> Iterator[Diagnostic]:
    found = cards.rows(cards.nvidia(host))
    if cards.torn(found):
        names = ", ".join(row["architecture"] for row in found)
        yield Diagnostic(
            code="LAB252",
            summary=f"no NVIDIA driver is for all cards of `{host.name}`: {names}",
            detail="a machine has one driver, and its modules are either the open or the proprietary ones",
            path=(*host.origin, "gpus"),
            hint="put the oldest or the newest of them into another machine",
        )
    tegra = [gpu for gpu in cards.nvidia(host) if cards.is_tegra(gpu)]
    if tegra:
        yield Diagnostic(
            code="LAB252",
            summary=f"`{tegra[0].model}` has a driver of its own, which NixOS does not have",
            path=tegra[0].origin,
            hint="use target `compose` on JetPack; the flake github:anduril/jetpack-nixos is not labctl's",
        )


def closed(host: PlacedHost, needs: Needs) -> Iterator[Diagnostic]:
    """Yield a problem for ports that other machines reach, where nobody can tell where those are."""
    options = host.machine or {}
    if options.get("interface") or tailscale.joins(host):
        return
    wide = [o for o in needs.openings if not o.container and o.bind in network.WILDCARDS]
    if wide:
        names = ", ".join(f"`{who}`" for who in dict.fromkeys(o.who for o in wide))
        yield _where(host, f"other machines reach {names} on `{host.name}`, and the firewall has to know from where")
    elif needs.node is not None and not _is_here(host):
        yield _where(
            host, f"the API server and the nodes have to reach `{host.name}`, and its firewall lets in SSH only"
        )


def _where(host: PlacedHost, summary: str) -> Diagnostic:
    return Diagnostic(
        code="LAB253",
        summary=summary,
        path=(*host.origin, "nixos"),
        at=At.KEY,
        hint="name the private network's interface: `nixos: {interface: enp1s0}`; or join a tailnet: `tailscale: KEY`",
    )


def _is_here(host: PlacedHost) -> bool:
    return host.address in {"localhost", "127.0.0.1", "::1"}


def warnings(host: PlacedHost) -> Iterator[Diagnostic]:
    """Yield what may shut the user out of a machine, and does not stop anything: the activation is taken back then."""
    options = host.machine
    if options is None:
        return
    stated = options.get("options")
    own = isinstance(stated, dict) and any(str(key).startswith("users") for key in stated)
    if not options.get("keys") and not own:
        yield Diagnostic(
            code="LAB254",
            severity=Severity.WARNING,
            summary=f"nothing says which SSH keys open `{host.name}`, and passwords do not",
            path=(*host.origin, "nixos"),
            at=At.KEY,
            hint="add `nixos: {keys: [ssh-ed25519 …]}`: users that another configuration declared are gone afterwards",
        )
    elif host.login.user is None and not own and not _is_here(host):
        yield Diagnostic(
            code="LAB254",
            severity=Severity.WARNING,
            summary=f"nothing says as whom labctl logs in to `{host.name}`, and the system has nobody but root",
            path=host.origin,
            at=At.KEY,
            hint="add `ssh: {user: root}`, or another name, which the system then has",
        )


def past_the_firewall(host: PlacedHost, needs: Needs) -> Iterator[Diagnostic]:
    """Yield a warning for what Docker or k3s publishes on every address, whatever the firewall says."""
    for opening in needs.openings:
        if opening.container and opening.bind in network.WILDCARDS:
            yield Diagnostic(
                code="LAB255",
                severity=Severity.WARNING,
                summary=f"`{opening.who}` is published on every address of `{host.name}`, past its firewall",
                path=host.origin,
                at=At.KEY,
                hint="say at which address other machines reach it: `bind: 192.168.1.5`, `bind: 100.…` of a tailnet",
            )
    node = needs.node
    if node is not None and node.server is None and not {"traefik", "servicelb"} & set(node.disable):
        yield Diagnostic(
            code="LAB255",
            severity=Severity.WARNING,
            summary=f"k3s publishes Traefik's ports on every address of `{host.name}`, past its firewall",
            path=(*host.origin, "k3s"),
            at=At.KEY,
            hint="`k3s: {disable: [traefik], charts: {ingress-nginx: }}` listens behind the firewall",
        )
