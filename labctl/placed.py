"""Hosts and servers once everything about them is decided: cards, folders, ports. Read by engines and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from labctl.artefact import Login
from labctl.diagnostics import DocPath
from labctl.values import dataclass
from labctl.vram.facts import GgufFacts, HfFacts
from labctl.workload import Accelerator, GpuAccess, GpuClaim, GpuDevice, Probe, SecretRef, SecretText, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedGpu:
    """One card of one host.

    Attributes:
        index: position on the PCI bus, from 0.
        uuid: ``GPU-…`` where known.
        model: the catalogue's name, e.g. ``RTX 5090``.
        vendor: ``nvidia``, ``amd`` or ``intel``.
        capability: CUDA compute capability such as ``8.6``; None for other vendors.
        gfx: AMD architecture such as ``gfx1151``; None for other vendors.
        memory: bytes as the driver reports them.
        reserve: bytes that labctl leaves free (display, other programs).
        unified: its memory is the host's memory.
        power_limit: watts, None to leave it.
        origin: the part of lab.yaml that lists it.
    """

    index: int
    model: str
    vendor: str
    memory: int
    reserve: int = 0
    uuid: str | None = None
    capability: str | None = None
    gfx: str | None = None
    unified: bool = False
    power_limit: int | None = None
    origin: DocPath = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a target keeps things on a host.

    Attributes:
        root: folder that the host's tree is laid into; ``/`` or, for the local target, a folder of the user's.
        config: folder for labctl's files, relative to ``root``, e.g. ``opt/labctl/my-lab``.
        state: folder for manifest, lock and audit log, relative to ``root``.
        models: the models folder as programs of the host see it: absolute, or relative to their working folder, which
            is then ``root``.
        site: the cluster that the host is a node of, None when it stands alone. Hosts of one site
            are rendered together.
        pages: where people reach public ports by host name, ``{}`` being the workload: ``https://{}.lab.example``.
    """

    root: str
    config: str
    state: str
    models: str
    site: str | None = None
    pages: str | None = None

    def in_tree(self, path: str) -> str:
        """Return a host path (absolute, or relative to the root) as a tree path."""
        return path.removeprefix("/")

    def on_host(self, tree_path: str) -> str:
        """Return a tree path as programs of the host see it."""
        return f"/{tree_path}" if self.root == "/" else tree_path


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedHost:
    """One host, ready to be rendered for.

    Attributes:
        name: its name in lab.yaml.
        lab: the lab's name.
        address: how other hosts reach it.
        bind: the address to bind for what other machines must reach: the narrowest that works.
        target: name of its target.
        places: its folders.
        arch: ``x86_64`` or ``aarch64``.
        user: who runs its native services; None for the target's default.
        gpu_access: how its container engine hands out NVIDIA cards.
        group_ids: numeric ids of its ``video`` and ``render`` groups.
        mirror: registry (and folder) that replaces every image's own, None for none.
        options: its target's own block of lab.yaml.
        machine: its ``nixos`` block, defaults filled in, whatever its target; None when the machine is not labctl's.
        login: how to log in to it.
    """

    name: str
    lab: str
    address: str
    bind: str
    target: str
    places: Places
    arch: str = "x86_64"
    cores: int | None = None
    cpu_features: frozenset[str] | None = None
    memory: int | None = None
    gpus: tuple[PlacedGpu, ...] = ()
    user: str | None = None
    gpu_access: GpuAccess = GpuAccess.RESERVATION
    group_ids: tuple[int, ...] = ()
    mirror: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    machine: Mapping[str, object] | None = None
    login: Login = Login()
    origin: DocPath = ()

    @property
    def network(self) -> str:
        """Name of the private network that its workloads are in: its cluster's, or its own."""
        return self.places.site or self.name

    def claim(self, gpus: tuple[PlacedGpu, ...], accelerator: Accelerator, budget: tuple[int, ...] = ()) -> GpuClaim:
        """Return the claim of a workload on some of this host's cards."""
        return GpuClaim(
            accelerator=accelerator,
            devices=tuple(GpuDevice(g.index, g.uuid) for g in gpus),
            budget=budget,
            access=self.gpu_access,
            group_ids=self.group_ids,
            unified=any(g.unified for g in gpus),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedModel:
    """A model on a host.

    Attributes:
        name: its key in ``models``.
        source: as written in lab.yaml.
        kind: the key that the source has there: ``gguf``, ``hf``, ``ollama`` or ``tiny``.
        file: its file in the host's models folder, None when the engine fetches it itself.
        projector: its projector's file there.
        facts: what is known of it; None when nothing is.
        chat_template: name of a template, or None for the model's own.
        revision: commit of its repository.
    """

    name: str
    source: str
    kind: str = "gguf"
    file: str | None = None
    projector: str | None = None
    gguf: GgufFacts | None = None
    hf: HfFacts | None = None
    projector_facts: GgufFacts | None = None
    exact: bool = True
    chat_template: str | None = None
    quantization: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The build of an engine that the compatibility gate chose for a server.

    Attributes:
        flavour: e.g. ``cuda12``, ``vulkan``, ``embedded``.
        version: of the engine, e.g. ``b11549``.
        image: the container image, None for a program of the host.
        accelerator: how it drives the cards; None on the CPU.
        probe: what the image can ask its own health with.
        settings: what the gate decided beyond the build, e.g. ``attention_backend``.
        env: environment that the build demands.
    """

    flavour: str
    version: str
    image: str | None = None
    accelerator: Accelerator | None = None
    probe: Probe = Probe.CURL
    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server of a deployment: what an engine turns into a workload.

    Attributes:
        name: the workload's name, unique in the lab.
        deployment: its key in ``deployments``.
        label: what tells it from its siblings, e.g. ``ash-gpu0``.
        port: the port it listens on when it is a program of the host, and is published at when a container.
        published: whether others than its neighbours on a private network reach it.
        bind: the host address it listens or is published at.
        budget: bytes per card it may take, in the order of ``gpus``.
        models: the models that it serves.
        after: servers of the same host that must be healthy before it starts.
        rpm/tpm/parallel: its share of the deployment's limits.
        on_demand: apply does not start it.
        turns: the exclusive group in which it takes turns; of its members apply runs one.
    """

    name: str
    deployment: str
    label: str
    host: PlacedHost
    runtime: Runtime
    models: tuple[PlacedModel, ...] = ()
    gpus: tuple[PlacedGpu, ...] = ()
    budget: tuple[int, ...] = ()
    port: int = 8080
    published: bool = True
    bind: str = "127.0.0.1"
    after: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    on_demand: bool = False
    turns: str | None = None
    origin: DocPath = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseLink:
    """A PostgreSQL database, as its users reach it.

    Attributes:
        service: its key in ``services``.
        workload: the workload's name, to start after it when on the same host.
        host/port: as the user's own host reaches it.
    """

    service: str
    host: str
    port: int
    name: str
    user: str
    password: SecretRef
    workload: str | None = None

    @property
    def url(self) -> SecretText:
        """``postgresql://user:password@host:port/name``; the password must be safe in a URL."""
        return SecretText((f"postgresql://{self.user}:", self.password, f"@{self.host}:{self.port}/{self.name}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLink:
    """The gateway, as one of its clients reaches it.

    Attributes:
        url: ``http://address:port``, without ``/v1``.
        key: the client's own key.
        after: names of workloads on the client's own host that have to be there first: the gateway, its keys.
        models: public names by task, in order.
    """

    url: str
    key: SecretRef
    after: tuple[str, ...] = ()
    models: Mapping[Task, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLink:
    """A service, as a user on one host reaches it.

    Attributes:
        name: its workload's name; kind: which service it is.
        addresses: port name → ``host:port``; ports that the user cannot reach are left out.
        after: whether it is on the user's own host, so that the user can start after it.
        options: its block of lab.yaml.
    """

    name: str
    kind: str
    addresses: Mapping[str, str]
    after: bool
    options: object = None

    def url(self, port: str = "http") -> str:
        """Return ``http://host:port``; KeyError when that port cannot be reached."""
        return f"http://{self.addresses[port]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """Figures that Prometheus collects, as its own host reaches them.

    Attributes:
        kind: the job; workload: whose they are, on which host.
        address: ``host:port``; path: where on it.
        keyed: whether the gateway's key is to be sent along.
        on_demand: it may rest: that it does not answer is no alarm.
    """

    kind: str
    workload: str
    host: str
    address: str
    path: str
    keyed: bool = False
    on_demand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CardBudget:
    """What labctl has planned for the cards of one host, in bytes."""

    host: str
    planned: int
    total: int
