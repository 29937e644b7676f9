"""The intermediate form between the two axes: what has to run, said once, for every target.

An engine, service or gateway produces ``Workload`` values and never names a target; a target spells them and never
names an engine. Everything here is final: ports are allocated, devices chosen, names fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from labctl.diagnostics import DocPath
from labctl.values import dataclass


class Capability(StrEnum):
    """Something that a workload may need and a target may be unable to express."""

    CONTAINER = "container images"
    NATIVE = "programs of the host"
    OWN_PYTHON = "programs that come with labctl"
    GPU = "GPU access"
    MEMORY_LIMIT = "memory limits"
    SWAP_LIMIT = "swap limits"
    CPU_LIMIT = "CPU limits"
    SHARED_MEMORY = "a larger /dev/shm"
    LOCKED_MEMORY = "locked memory"
    VOLUME = "data volumes"
    ON_DEMAND = "workloads that are created but not started"
    ONCE = "tasks that run to their end"
    REPLICAS = "several replicas of a workload"
    CONTROL = "programs that start and stop others"
    CONFIG_FILE = "configuration files"
    SECRET_ENV = "secrets in the environment"  # noqa: S105 - a capability's name


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret by name. Its value exists only in the executor that writes it."""

    name: str


@dataclass(frozen=True, slots=True)
class SecretText:
    """A text with secrets in it, e.g. a database URL: literal parts and references, joined when written."""

    parts: tuple[str | SecretRef, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the secrets in it, in order of first use."""
        return tuple(dict.fromkeys(p.name for p in self.parts if isinstance(p, SecretRef)))


EnvValue = str | SecretText


class Accelerator(StrEnum):
    """How a program drives a GPU."""

    CUDA = "cuda"
    ROCM = "rocm"
    VULKAN = "vulkan"


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One physical card (or slice of one) of a host."""

    index: int
    """Position on the PCI bus, from 0."""
    uuid: str | None = None
    """``GPU-…`` as the driver reports it, where known."""


class GpuAccess(StrEnum):
    """How a container engine hands NVIDIA cards to a container."""

    RESERVATION = "reservation"
    CDI = "cdi"
    RUNTIME = "runtime"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuClaim:
    """The cards that a workload uses, all on one host.

    Attributes:
        accelerator: how the program drives them.
        devices: in the order in which the program numbers them.
        budget: bytes per device it may take.
        access: how a container gets them.
        group_ids: numeric ids of the host's ``video`` and ``render`` groups (AMD and Vulkan containers).
        unified: GPU memory is system memory (Strix Halo, Jetson).
        observes: it only looks at the cards and takes nothing of them: no scheduler may count it as their user.
    """

    accelerator: Accelerator
    devices: tuple[GpuDevice, ...]
    budget: tuple[int, ...] = ()
    access: GpuAccess = GpuAccess.RESERVATION
    group_ids: tuple[int, ...] = ()
    unified: bool = False
    observes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder of the host or a named volume, seen inside a container."""

    source: str
    """A host path, or a volume's name when ``volume``."""
    target: str
    read_only: bool = False
    volume: bool = False
    size: int | None = None
    """Bytes that a volume may grow to, where the target can say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A file that belongs to one workload. Its content holds no secret."""

    name: str
    """File name under the workload's own folder, e.g. ``config.yaml``."""
    content: str
    target: str
    """Where a container sees it. In a native program's arguments ``{config:NAME}`` stands for its place on the host."""
    mode: int = 0o644
    value: object = field(default=None, compare=False, repr=False)
    """What ``content`` says, as plain values, where it was written from some: for targets that write them otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A TCP port that a workload listens on."""

    name: str
    listen: int
    """The port inside the container; for a native program the host's own."""
    published: int | None
    """The port on the host, None when only neighbours in the same network reach it."""
    bind: str = "127.0.0.1"
    """The host address it is reachable at."""


class Probe(StrEnum):
    """What an image has on board to ask its own health endpoint."""

    CURL = "curl"
    WGET = "wget"
    PYTHON = "python3"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How to tell that a workload is ready: an HTTP GET that answers 2xx, or a command inside. Durations in seconds."""

    path: str | None = None
    port: str = "http"
    """Name of the ``Port`` that ``path`` is asked on."""
    command: tuple[str, ...] = ()
    interval: int = 15
    timeout: int = 5
    retries: int = 3
    start_period: int = 60
    """How long it may take to start before a failure counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuild:
    """An image that is built on the host, once however many workloads use it."""

    name: str
    """Folder of its files."""
    files: Mapping[str, str]
    """File name → text; a ``Dockerfile`` among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The container form of a workload."""

    image: str
    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, EnvValue] = field(default_factory=dict)
    """Extra environment of this form only."""
    probe: Probe = Probe.CURL
    shm_size: int | None = None
    """Bytes of /dev/shm."""
    init: bool = True
    user: str | None = None
    locked_memory: bool = False
    chosen: bool = False
    """Whether lab.yaml names the image itself, so that no other program may stand in for it."""
    sealed: bool = False
    """Whether it gets by without rights: it writes nothing but /tmp, and needs none of root's privileges."""
    build: ImageBuild | None = None
    """How to build ``image`` on the host; None when it is pulled."""

    @property
    def local_image(self) -> bool:
        """Whether the image is built on the host by labctl and never pulled."""
        return self.build is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """The form of a workload as a program of the host. Paths in ``args`` are host paths."""

    program: str
    """Absolute path, or a name to be found on PATH; ``{python}`` is the Python that runs labctl (local target)."""
    args: tuple[str, ...] = ()
    env: Mapping[str, EnvValue] = field(default_factory=dict)
    user: str | None = None
    locked_memory: bool = False
    files: tuple[ConfigFile, ...] = ()
    """Files of this form only, such as the program itself; beside the workload's own."""
    imports: tuple[str, ...] = ()
    """Modules that labctl's own program needs of the host's Python, which is its ``program``."""
    credentials: Mapping[str, SecretText] = field(default_factory=dict)
    """Secrets that it reads from files: ``{credential:NAME}`` in an argument stands for the place of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """How a program of its host (llama-swap, llama.cpp's router) runs a server as its own child.

    In arguments ``{models}`` stands for the models folder as the parent sees it, and ``{cards:NAME}`` for NAME with the
    place of each of the server's cards among those that the parent sees: ``CUDA0,CUDA2``.

    Attributes:
        program: as in ``Native``.
        args: they name the server's own port on the loopback address.
        port: that port.
    """

    program: str
    args: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where a workload shows its figures in Prometheus' text format."""

    kind: str
    """What it is, e.g. ``llama.cpp``: the ``job`` that its figures belong to."""
    path: str = "/metrics"
    port: str = "http"
    keyed: bool = False
    """Whether it wants a key of the gateway as a bearer token."""


@dataclass(frozen=True, slots=True)
class Control:
    """How a program starts and stops another workload of its own host.

    Attributes:
        kind: who manages it: ``docker``, ``systemd``, ``systemd-user``, ``supervisor``.
        id: what its manager calls it.
        at: where the manager is reached, as the program sees it; "" for its usual place.
    """

    kind: str
    id: str
    at: str = ""


class Start(StrEnum):
    """When a workload runs."""

    ALWAYS = "always"
    ON_DEMAND = "on-demand"
    ONCE = "once"
    """A task that runs to its end when the lab is applied, and again when its definition changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One thing that runs on one host.

    Attributes:
        name: unique in the lab, a DNS label; host: name of its host.
        product: what program it is, as distributions call it: ``ollama``, ``grafana``; "" when nobody packages it.
        forms: how it can be run, best first; a target takes the first one it accepts.
        env: environment of every form; files: configuration files.
        ports: what it listens on.
        gpu: its cards, None when it needs none.
        health: how to see that it is ready.
        after: names of workloads on the same host that must be healthy before it starts.
        memory_limit: bytes of RAM; swap_limit: bytes of RAM + swap together.
        cpus: CPU cores it may use at most.
        models: names of ``ModelFile`` paths that it reads (relative to the host's models folder).
        start: whether it is started with the lab, on demand, or runs to its end.
        time_limit: seconds that a task (``Start.ONCE``) may take.
        turns: the exclusive group in which it takes turns: one member is ``ALWAYS``, and runs; the others are not to.
        replicas: how many of it run, all alike.
        public: names of the ports that people and their clients open: pages and the gateway's API, not databases.
        child: how a program beside it runs it as its own child, None where it cannot.
        controls: names of the workloads of its host that it starts and stops: it is given the right to.
        serves_to: names of the workloads that call it; None when any may.
        metrics: where it shows its figures, None when nowhere.
        origin: the part of lab.yaml that asked for it.
        extra: per target name, a mapping merged last into what the target renders for it.
        description: a few words for humans.
    """

    name: str
    host: str
    forms: tuple[Container | Native, ...]
    product: str = ""
    env: Mapping[str, EnvValue] = field(default_factory=dict)
    files: tuple[ConfigFile, ...] = ()
    ports: tuple[Port, ...] = ()
    gpu: GpuClaim | None = None
    health: Health | None = None
    after: tuple[str, ...] = ()
    memory_limit: int | None = None
    swap_limit: int | None = None
    cpus: float | None = None
    models: tuple[str, ...] = ()
    start: Start = Start.ALWAYS
    time_limit: int = 600
    turns: str | None = None
    replicas: int = 1
    public: tuple[str, ...] = ()
    child: Child | None = None
    controls: tuple[str, ...] = ()
    serves_to: tuple[str, ...] | None = None
    metrics: Metrics | None = None
    origin: DocPath = ()
    extra: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    description: str = ""

    def port(self, name: str = "http") -> Port:
        """Return the port of that name; KeyError when there is none."""
        for port in self.ports:
            if port.name == name:
                return port
        raise KeyError(name)


class Task(StrEnum):
    """What a model is asked to do; decides the API and the gateway's health mode."""

    CHAT = "chat"
    COMPLETE = "complete"
    EMBED = "embed"
    RERANK = "rerank"
    TRANSCRIBE = "transcribe"
    SPEAK = "speak"
    IMAGE = "image"


class ApiFlavour(StrEnum):
    """The protocol that a model server speaks, so that a gateway can choose its client."""

    OPENAI = "openai"
    """OpenAI-compatible; the model name is not checked."""
    VLLM = "vllm"
    OLLAMA = "ollama"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One model on one server, as a gateway sees it. URLs are built when the gateway's own host is known.

    Attributes:
        workload: the server's name, its port's name in ``port``.
        backend_model: the model name that the server reports.
        serves: public names, the first is the main one.
        rpm/tpm/parallel: limits of this one server; None is no limit.
        timeout: seconds a request may take, None for the gateway's default.
        slots: requests that it works on at a time, None where its engine decides.
        on_demand: the server is not always up: it must not be probed with requests.
    """

    workload: str
    host: str
    port: str = "http"
    flavour: ApiFlavour
    task: Task
    backend_model: str
    serves: tuple[str, ...]
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    timeout: int | None = None
    context: int | None = None
    slots: int | None = None
    on_demand: bool = False
    label: str = ""
    """What tells it from its siblings, e.g. ``ash-gpu0``."""
    origin: DocPath = ()
