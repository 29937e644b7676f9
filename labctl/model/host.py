"""Hosts: machines, their cards, and where labctl may put things."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from labctl.model.base import ADDRESS_PATTERN, Block, Duration, Name, PortNumber, Positive, Power, SecretName, Size
from labctl.model.fields import Folder, OneOrMany, conflict
from labctl.quantity import GIB

SSH_KEY = (
    r"^(ssh-(ed25519|rsa)|ecdsa-sha2-nistp\d+|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r" [A-Za-z0-9+/]+=*( .*)?$"
)
"""A public key as ``authorized_keys`` has it."""
CpuFeature = Literal["sse42", "avx", "avx2", "fma", "f16c", "bmi2", "avx512", "neon", "dotprod", "sve"]


class Ssh(Block):
    """How to log in. What is left out comes from ``~/.ssh/config``."""

    user: Annotated[str | None, Field(description="login name")] = None
    port: Annotated[PortNumber | None, Field(description="port of its SSH server")] = None
    identity: Annotated[str | None, Field(description="private key file")] = None
    jump: Annotated[str | None, Field(description="host to go through, as for `ssh -J`")] = None
    sudo: Annotated[
        bool | None,
        Field(description="become root by sudo; default: where the login is not root and the target needs it"),
    ] = None


class Cpu(Block):
    """The processor. Left out, any x86-64 or aarch64 baseline is assumed."""

    cores: Annotated[Positive | None, Field(description="number of cores")] = None
    features: Annotated[
        tuple[CpuFeature, ...] | None,
        Field(description="instruction sets beyond the baseline; `[]` says that it has none"),
    ] = None


class Gpu(Block):
    """One kind of card in a host."""

    model: Annotated[str, Field(description="name of the card, as in `labctl explain gpus`", examples=["RTX 3070"])]
    count: Annotated[Positive, Field(description="how many of them")] = 1
    uuid: Annotated[
        OneOrMany[Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9a-fA-F-]+$")]],
        Field(description="UUIDs as `nvidia-smi -L` prints them, one per card"),
    ] = ()
    memory: Annotated[Size | None, Field(description="memory per card, where it differs from the catalogue")] = None
    reserve: Annotated[Size, Field(description="memory per card that labctl leaves free")] = 0
    power_limit: Annotated[Power | None, Field(description="limit per card", examples=["90 W"])] = None

    @model_validator(mode="after")
    def _uuids_match(self) -> Self:
        if self.uuid and len(self.uuid) != self.count:
            listed = f"{len(self.uuid)} card{'' if len(self.uuid) == 1 else 's'}"
            conflict(f"`uuid` lists {listed} and `count` says {self.count}", "list one UUID per card")
        return self


class GroupIds(Block):
    """Numeric ids of the host's groups that own the GPU devices (``getent group video render``)."""

    video: int = 44
    render: int = 105


class Chart(Block):
    """A Helm chart that k3s installs (a ``HelmChart`` resource). Of charts that labctl knows, the name is enough."""

    chart: Annotated[str | None, Field(description="name of the chart; default: its key")] = None
    repo: Annotated[str | None, Field(description="where it comes from", pattern=r"^(https?|oci)://")] = None
    version: Annotated[str | None, Field(description="its release")] = None
    namespace: Annotated[Name | None, Field(description="namespace that it is installed into")] = None
    values: Annotated[dict[str, Any], Field(description="its values, laid over what labctl sets")] = {}


class K3s(Block):
    """A node of a Kubernetes cluster. What one host says of the cluster holds for all of its hosts."""

    cluster: Annotated[Name, Field(description="the cluster; hosts with the same one are its nodes")] = "k3s"
    node: Annotated[
        str | None, Field(description="what Kubernetes calls this host; default: its key", pattern=r"^[a-z0-9.-]+$")
    ] = None
    context: Annotated[str | None, Field(description="kubeconfig context")] = None
    namespace: Annotated[Name, Field(description="namespace of the lab")] = "labctl"
    domain: Annotated[
        str | None,
        Field(description="ingress hosts are `<service>.<domain>`", pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"),
    ] = None
    ingress_class: Annotated[
        Name | None, Field(description="class of ingresses; default `traefik`, or `nginx` where that is disabled")
    ] = None
    tls: Annotated[Name | None, Field(description="secret of the namespace with a certificate for all hosts")] = None
    issuer: Annotated[Name | None, Field(description="cert-manager's cluster issuer that makes certificates")] = None
    storage_class: Annotated[str | None, Field(description="class of volumes; `null` for the cluster's default")] = (
        "local-path"
    )
    volume_size: Annotated[Size, Field(description="size of data volumes that say none")] = 20 * GIB
    models_size: Annotated[Size, Field(description="size of each node's volume for model files")] = 100 * GIB
    hub_token: Annotated[SecretName | None, Field(description="secret with Hugging Face's token, for gated models")] = (
        None
    )
    runtime_class: Annotated[
        Name | None, Field(description="runtime class of pods with NVIDIA cards; `null` where it is the default")
    ] = "nvidia"
    time_slicing: Annotated[
        int | None, Field(description="how many pods share one NVIDIA card; nothing keeps their memory apart", ge=2)
    ] = None
    charts: Annotated[
        dict[Name, Chart | None], Field(description="charts to install, e.g. `nvidia-device-plugin`, `ingress-nginx`")
    ] = {}
    disable: Annotated[tuple[str, ...], Field(description="k3s components that are not installed")] = ()
    prepare: Annotated[bool, Field(description="write k3s' own configuration onto this host, over SSH")] = False
    server: Annotated[
        str | None, Field(description="address of the server that this agent joins", pattern=r"^https://")
    ] = None
    token: Annotated[SecretName | None, Field(description="secret with the token that nodes join with")] = None


class Nixos(Block):
    """A NixOS machine."""

    release: Annotated[Literal["25.11", "26.05", "26.11"], Field(description="NixOS release")] = "26.05"
    revision: Annotated[
        str | None,
        Field(description="commit of nixpkgs; default: the newest of the release", pattern=r"^[0-9a-f]{40}$"),
    ] = None
    state_version: Annotated[
        str | None,
        Field(
            description="release that the machine was installed with; default 26.05, or an older `release`",
            pattern=r"^\d\d\.\d\d$",
        ),
    ] = None
    unfree: Annotated[
        bool | tuple[str, ...],
        Field(
            description="allow the packages without a free licence that are asked for, by name, and these further ones"
        ),
    ] = True
    secrets: Annotated[
        Literal["labctl", "sops-nix", "agenix"],
        Field(description="who brings secrets to the machine; they never lie in the Nix store"),
    ] = "labctl"
    secrets_folder: Annotated[
        Folder | None, Field(description="folder of the machine with agenix' files; default `/etc/agenix`")
    ] = None
    confirm: Annotated[
        Duration, Field(description="how long a new system waits to be confirmed before the old one comes back")
    ] = 60
    build: Annotated[
        str | None,
        Field(
            description="machine that builds, as the host's root reaches it by SSH; default: the host itself",
            examples=["root@forge"],
            pattern=r"^([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*$",
        ),
    ] = None
    options: Annotated[
        dict[str, Any],
        Field(
            description="further NixOS options, laid over what labctl sets",
            examples=[{"time.timeZone": "Europe/Berlin"}],
        ),
    ] = {}
    tailscale: Annotated[SecretName | None, Field(description="secret that holds the auth key")] = None
    disk: Annotated[
        str | None,
        Field(
            description="disk that the first install partitions and labctl's flake describes",
            examples=["/dev/vda"],
            pattern=r"^/dev/\S+$",
        ),
    ] = None
    hardware: Annotated[
        str | None,
        Field(
            description="file beside lab.yaml with the machine's file systems, as `nixos-generate-config` writes it",
            examples=["hardware-configuration.nix"],
        ),
    ] = None
    boot: Annotated[
        str | None,
        Field(
            description="beside `hardware`: `uefi`, the disk with the boot record, or `given` where the file says it",
            examples=["uefi", "/dev/sda"],
            pattern=r"^(uefi|given|/dev/\S+)$",
        ),
    ] = None
    keys: Annotated[
        tuple[Annotated[str, Field(pattern=SSH_KEY)], ...],
        Field(description="public SSH keys that open the machine, for root and for `ssh: {user}`"),
    ] = ()
    interface: Annotated[
        str | None,
        Field(
            description="interface of the private network: what other machines reach is open there",
            examples=["enp1s0"],
            pattern=r"^[A-Za-z0-9._-]{1,15}$",
        ),
    ] = None


class Host(Block):
    """One machine of the lab."""

    address: Annotated[
        str, Field(description="name or IP address; `localhost` is this machine", pattern=ADDRESS_PATTERN)
    ] = "localhost"
    target: Annotated[str, Field(description="what runs its workloads", examples=["compose"])]
    ssh: Ssh = Ssh()
    bind: Annotated[str | None, Field(description="address that serves other machines; default `address`")] = None
    arch: Literal["x86_64", "aarch64"] = "x86_64"
    cpu: Cpu = Cpu()
    memory: Annotated[Size | None, Field(description="RAM; without it RAM is not checked")] = None
    reserve: Annotated[Size | None, Field(description="RAM left for the system, default 1 GiB")] = None
    gpus: tuple[Gpu, ...] = ()
    driver: Annotated[str | None, Field(description="GPU driver version", examples=["580.65"])] = None
    gpu_access: Annotated[
        Literal["reservation", "cdi", "runtime"], Field(description="how containers get NVIDIA cards")
    ] = "reservation"
    group_ids: Annotated[GroupIds | None, Field(description="groups of /dev/dri and /dev/kfd for AMD containers")] = (
        None
    )
    models: Annotated[Folder | None, Field(description="folder for model files", examples=["/srv/models"])] = None
    user: Annotated[str | None, Field(description="user that native services run as")] = None
    compose: Annotated[dict[str, Any], Field(description="options of the compose target")] = {}
    systemd: Annotated[dict[str, Any], Field(description="options of the systemd target")] = {}
    local: Annotated[dict[str, Any], Field(description="options of the local target")] = {}
    k3s: Annotated[K3s | None, Field(description="options of the k3s target")] = None
    nixos: Annotated[Nixos | None, Field(description="options of the NixOS target")] = None

    @model_validator(mode="after")
    def _one_owner(self) -> Self:
        if self.nixos is not None and self.k3s is not None and self.k3s.prepare:
            conflict("`prepare` writes files that NixOS owns on this host", "leave `k3s: {prepare: true}` out")
        if self.nixos is not None and self.target not in {"nixos", "k3s"}:
            hint = "use target `nixos`; or leave the block out, and set the machine up by hand"
            conflict(f"target `{self.target}` does not look after a NixOS machine", hint)
        return self

    @property
    def is_local(self) -> bool:
        """Whether it is the machine that labctl runs on."""
        return self.address in {"localhost", "127.0.0.1", "::1"}

    def machine_options(self) -> dict[str, Any] | None:
        """Return the ``nixos`` block with its defaults, None where NixOS is not what the machine runs on."""
        block = self.nixos or (Nixos() if self.target == "nixos" else None)
        return None if block is None else block.model_dump()

    def target_options(self) -> dict[str, Any]:
        """Return the block of its own target."""
        if self.target == "nixos":
            return self.machine_options() or {}
        if self.target == "k3s" and self.k3s is not None:
            return self.k3s.model_dump(exclude_unset=True)
        block = {"compose": self.compose, "systemd": self.systemd, "local": self.local}.get(self.target, {})
        return dict(block)
