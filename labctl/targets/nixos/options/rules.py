"""What several definitions have to be together: the assertions of NixOS modules that a lab can run into.

Each rule is a function from a host's definitions to problems, named in ``MACHINE`` or ``RULES``. The assertions are
those of the modules that it names; where labctl demands more, the rule says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from labctl.emit.nix import Ref
from labctl.targets.nixos.options import ports
from labctl.targets.nixos.options.problem import Kind, Problem
from labctl.targets.nixos.options.view import View

Rule: TypeAlias = Callable[[View, str], Iterator[Problem]]


def check(definitions: Mapping[str, object], release: str, *, whole: bool = True) -> Iterator[Problem]:
    """Yield what the rules find, in the order of ``RULES``; those of ``MACHINE`` first, when disks are defined here."""
    view = View(definitions)
    for rule in (*(MACHINE if whole else ()), *RULES):
        yield from rule(view, release)


def defined(definitions: Mapping[str, object], path: tuple[str, ...]) -> bool:
    """Whether an option has a definition."""
    return View(definitions).has(*path)


def _problem(path: str, message: str, remedy: str, kind: Kind = Kind.CONFLICT) -> Problem:
    return Problem(kind, tuple(path.split(".")), message, remedy)


def _root(view: View, _: str) -> Iterator[Problem]:
    """``toplevel``: a host that is no container has a root file system."""
    if not (view.true("boot.isContainer") or view.has("fileSystems", "/") or view.has("disko")):
        where = ("fileSystems", "/")
        yield Problem(Kind.MISSING, where, "The host has no root file system", 'Define `fileSystems."/"`, or the disk')


def _boot_loader(view: View, _: str) -> Iterator[Problem]:
    """``boot.loader.grub``: it is enabled by default and wants a disk; two boot loaders are one too many."""
    others = [name for name in _LOADERS if view.true(f"boot.loader.{name}.enable")]
    grub = view.get("boot.loader.grub.device") or view.get("boot.loader.grub.devices")
    if not (others or grub or view.has("disko") or view.true("boot.isContainer")):
        remedy = "Set `boot.loader.systemd-boot.enable`, or `boot.loader.grub.device`"
        yield _problem("boot.loader", "The host has no boot loader", remedy, Kind.MISSING)
    if others and view.true("boot.loader.grub.enable"):
        message = f"`boot.loader.{others[0]}` and `boot.loader.grub` are both enabled"
        yield _problem("boot.loader.grub.enable", message, "Enable one of them")


_LOADERS: Final = ("systemd-boot", "generic-extlinux-compatible", "limine", "initScript", "external")


def _nvidia(view: View, _: str) -> Iterator[Problem]:
    """``hardware.nvidia``: everything depends on ``videoDrivers``, and which kernel module has to be said."""
    driver = "nvidia" in view.items("services.xserver.videoDrivers")
    datacenter = view.true("hardware.nvidia.datacenter.enable")
    if driver and datacenter:
        message = "`hardware.nvidia.datacenter` and the video driver `nvidia` exclude each other"
        yield _problem("hardware.nvidia.datacenter.enable", message, "Leave one of them out")
    if driver and not datacenter and view.get("hardware.nvidia.open") is None:
        remedy = "Set it: true for Turing cards and newer ones, false for older ones"
        yield _problem("hardware.nvidia.open", "`hardware.nvidia.open` is not set", remedy, Kind.MISSING)
    toolkit = "hardware.nvidia-container-toolkit"
    trusted = driver or datacenter or view.true(f"{toolkit}.suppressNvidiaDriverAssertion")
    if view.has("hardware", "nvidia") and not trusted:
        message = "`hardware.nvidia` does nothing without the video driver `nvidia`"
        yield _problem("hardware.nvidia", message, 'Set `services.xserver.videoDrivers = [ "nvidia" ]`')
    toolkit = "hardware.nvidia-container-toolkit"
    if view.true(f"{toolkit}.enable") and not (
        driver or datacenter or view.true(f"{toolkit}.suppressNvidiaDriverAssertion")
    ):
        message = "The container toolkit needs the video driver `nvidia`"
        yield _problem(f"{toolkit}.enable", message, 'Set `services.xserver.videoDrivers = [ "nvidia" ]`')
    if (legacy := _legacy_driver(view)) and view.get("hardware.nvidia.open") is True:
        # legacy branches are there for cards that the open kernel modules do not drive
        message = f"`{legacy}` is for cards older than Turing, which have no open kernel modules"
        yield _problem("hardware.nvidia.open", message, "Set it to false")


def _legacy_driver(view: View) -> str:
    """Return the driver's name where it is one of the old ones, empty otherwise."""
    package, branch = view.get("hardware.nvidia.package"), view.get("hardware.nvidia.branch")
    name = package.path.rpartition(".")[2] if isinstance(package, Ref) else str(branch or "")
    return name if name.startswith("legacy_") else ""


def _unfree(view: View, _: str) -> Iterator[Problem]:
    """``nixpkgs``: the driver and CUDA are not free software, and Nix refuses to evaluate them unasked."""
    if "nvidia" not in view.items("services.xserver.videoDrivers"):
        return
    if not (view.true("nixpkgs.config.allowUnfree") or view.has("nixpkgs", "config", "allowUnfreePredicate")):
        remedy = "Set `nixpkgs.config.allowUnfreePredicate`, or `allowUnfree`"
        yield _problem("nixpkgs.config", "NVIDIA's driver is not free software", remedy, Kind.MISSING)


def _containers(view: View, _: str) -> Iterator[Problem]:
    """``oci-containers``, ``podman``: one backend, and containers that exist."""
    containers = view.names("virtualisation.oci-containers.containers")
    backend = view.get("virtualisation.oci-containers.backend") or "podman"
    docker = view.true("virtualisation.docker.enable") or (backend == "docker" and bool(containers))
    for option in ("dockerCompat", "dockerSocket.enable"):
        if docker and view.true(f"virtualisation.podman.{option}"):
            message = f"`virtualisation.podman.{option}` and Docker exclude each other"
            yield _problem(f"virtualisation.podman.{option}", message, "Leave one of them out")
    for name in containers:
        at = ("virtualisation", "oci-containers", "containers", name)
        own = View(view.at(*at))
        for other in own.items("dependsOn"):
            if other not in containers:
                message = f"The container `{name}` depends on `{other}`, which is none"
                yield Problem(Kind.CONFLICT, (*at, "dependsOn"), message, "Name another container, or leave it out")
        if backend == "docker" and own.has("podman"):
            message = f"The container `{name}` has settings for podman, and Docker runs it"
            yield Problem(Kind.CONFLICT, (*at, "podman"), message, "Leave them out")
        if backend == "docker" and own.get("pull") == "newer":
            yield Problem(
                Kind.CONFLICT, (*at, "pull"), "Docker has no pull policy `newer`", "Choose `always` or `missing`"
            )


def _k3s(view: View, _: str) -> Iterator[Problem]:
    """``services.k3s``: what an agent must and must not have."""
    if not view.true("services.k3s.enable") or view.get("services.k3s.role") != "agent":
        return
    for option in ("clusterInit", "disableAgent"):
        if view.true(f"services.k3s.{option}"):
            message = f"`services.k3s.{option}` is for servers, and this host is an agent"
            yield _problem(f"services.k3s.{option}", message, "Leave it out")
    if view.has("services", "k3s", "configPath"):
        return
    if not view.get("services.k3s.serverAddr"):
        message = "An agent needs the address of a server"
        yield _problem("services.k3s.serverAddr", message, "Set it, as `https://HOST:6443`", Kind.MISSING)
    if not view.get("services.k3s.tokenFile"):
        message = "An agent needs the cluster's token"
        yield _problem("services.k3s.tokenFile", message, "Set it to the path of the token's file", Kind.MISSING)


def _llama_cpp(view: View, release: str) -> Iterator[Problem]:
    """``services.llama-cpp``: before 26.11 the module asserts that it has something to serve."""
    what = ("model", "modelsDir", "modelsPreset")
    if release >= "26.11" or not view.true("services.llama-cpp.enable"):
        return
    if not any(view.get(f"services.llama-cpp.{option}") for option in what):
        message = "`services.llama-cpp` has no model"
        yield _problem("services.llama-cpp.model", message, "Set `model`, or `modelsDir`", Kind.MISSING)


def _monitoring(view: View, release: str) -> Iterator[Problem]:
    """``alertmanager`` asserts a configuration; ``grafana`` of 26.05 and later wants a key of one's own."""
    manager = "services.prometheus.alertmanager"
    if view.true(f"{manager}.enable") and not (
        view.get(f"{manager}.configuration") or view.get(f"{manager}.configText")
    ):
        yield _problem(f"{manager}.configuration", "Alertmanager has no configuration", "Set it", Kind.MISSING)
    key = "services.grafana.settings.security.secret_key"
    if release >= "26.05" and view.true("services.grafana.enable") and view.get(key) is None:
        remedy = "Set it to a file: `$__file{/run/…}`"
        yield _problem(key, "Grafana has no key of its own, and there is no default any more", remedy, Kind.MISSING)


def _tailscale(view: View, _: str) -> Iterator[Problem]:
    """``services.tailscale``: ``extraUpFlags`` are of the login that the key makes."""
    flags = "services.tailscale.extraUpFlags"
    if view.items(flags) and not view.get("services.tailscale.authKeyFile"):
        yield _problem(flags, f"`{flags}` does nothing without a key", "Set `authKeyFile`, or use `extraSetFlags`")


def _users(view: View, _: str) -> Iterator[Problem]:
    """``users``: a person's account or a service's, and a service's has a group; root and modules' own have theirs."""
    for name in view.names("users.users"):
        at = ("users", "users", name)
        own = View(view.at(*at))
        uid = own.get("uid")
        system = own.true("isSystemUser") or (isinstance(uid, int) and uid < _FIRST_PERSON)
        normal = own.true("isNormalUser")
        if (normal and system) or not (normal or system or name == "root" or view.true(f"services.{name}.enable")):
            message = f"The user `{name}` is {'both' if normal else 'neither'} of `isNormalUser` and `isSystemUser`"
            yield Problem(Kind.CONFLICT, at, message, "Set one of them")
        if own.true("isSystemUser") and not own.get("group"):
            yield Problem(Kind.MISSING, (*at, "group"), f"The user `{name}` has no group", "Set `group`, and define it")


_FIRST_PERSON: Final = 1000
"""User numbers below it are of services (nixos/modules/config/users-groups.nix)."""


def _twice(view: View, _: str) -> Iterator[Problem]:
    """``systemd.services``, ``environment.etc``: two ways to say one thing."""
    for name in view.names("systemd.services"):
        at = ("systemd", "services", name)
        if view.has(*at, "script") and view.has(*at, "serviceConfig", "ExecStart"):
            message = f"The service `{name}` has both `script` and `serviceConfig.ExecStart`"
            yield Problem(Kind.CONFLICT, (*at, "script"), message, "Leave one of them out")
    for name in view.names("environment.etc"):
        at = ("environment", "etc", name)
        if view.has(*at, "text") == view.has(*at, "source"):
            message = f"The file `/etc/{name}` needs either `text` or `source`"
            yield Problem(Kind.CONFLICT, at, message, "Set one of them")


MACHINE: Final[tuple[Rule, ...]] = (_root, _boot_loader)
RULES: Final[tuple[Rule, ...]] = (
    _nvidia,
    _unfree,
    _containers,
    _k3s,
    _llama_cpp,
    _monitoring,
    _tailscale,
    _users,
    _twice,
    ports.check,
)
