"""One service of a compose file (compose-spec, ``spec.md`` and ``deploy.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from labctl.emit import Value
from labctl.placed import PlacedHost
from labctl.quantity import GIB, MIB
from labctl.targets import gpus, shared
from labctl.workload import Accelerator, Container, GpuAccess, GpuClaim, Health, Mount, Port, Probe, Start, Workload

LOGGING: Final[Mapping[str, Value]] = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
"""Docker's own default keeps every line for ever."""

STOPS: Final = 30
"""Seconds to end, then it is killed; Docker's own 10 are short for a server that gives back many GB on cards."""
KEEPS_DATA: Final = 120
"""The same for what has data to write: a database that is killed has to recover when it starts."""
_ORDER: Final = frozenset({"depends_on", "profiles"})
"""Keys that say when a service is started and change nothing of what runs."""
_SEALED: Final[Mapping[str, Value]] = {
    "read_only": True,
    "tmpfs": ["/tmp"],  # noqa: S108 - the container's own, in memory
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
_GRAPHICS: Final = ["gpu", "graphics", "utility"]
"""What Vulkan needs of NVIDIA's container runtime."""


Running = Mapping[str, tuple[Workload, Container]]
"""What a host's services are made of, by name."""

_SOCKET: Final = Mount(source="/var/run/docker.sock", target="/var/run/docker.sock")
"""For a workload that starts and stops others. Whoever can write to it is root on the host: nobody else gets it."""


def service(host: PlacedHost, workload: Workload, form: Container, running: Running) -> tuple[Value, str]:
    """Return a service and its fingerprint.

    Args:
        host: where it runs.
        workload: what runs.
        form: its container form.
        running: everything on the host, to know what can be waited for.
    """
    plain = _without_empty(
        _program(host, workload, form)
        | _data(host, workload, form)
        | _links(workload, form, running)
        | _resources(host, workload, form)
        | {"labels": _labels(host, workload)}
    )
    definition = shared.merge(plain, workload.extra.get("compose", {}))
    build = dict(form.build.files) if form.build else {}
    runs = {key: value for key, value in definition.items() if key not in _ORDER}
    digest = shared.fingerprint(workload, [runs, build])
    # Compose does not see when a mounted file changes (docker/compose#11900); it sees a label.
    marked = shared.merge(definition, {"labels": {"labctl.fingerprint": digest}})
    return _no_interpolation(marked), digest


def container_name(host: PlacedHost, name: str) -> str:
    """Return what the engine calls a workload's container."""
    return f"{host.lab}-{name}"


def environment(host: PlacedHost, workload: Workload, form: Container) -> shared.Environment:
    """Return the service's variables, those of its cards among them."""
    claim = workload.gpu
    cards = gpus.inside(host, claim) | _runtime_variables(host, claim) if claim else {}
    return shared.Environment.of(workload, form, cards)


def _program(host: PlacedHost, workload: Workload, form: Container) -> dict[str, Value]:
    on_demand = workload.start is Start.ON_DEMAND
    sealed = _SEALED if form.sealed else {}
    return {
        "image": form.image,
        "container_name": container_name(host, workload.name),
        "pull_policy": "never" if form.local_image else "missing",
        "profiles": ["on-demand"] if on_demand else [],
        "restart": "unless-stopped" if workload.start is Start.ALWAYS else "no",
        "init": True if form.init else None,
        "stop_grace_period": f"{KEEPS_DATA if any(m.volume for m in form.mounts) else STOPS}s",
        "user": form.user,
        "entrypoint": list(form.entrypoint or ()),
        "command": list(form.args),
        **sealed,
    }


def _data(host: PlacedHost, workload: Workload, form: Container) -> dict[str, Value]:
    variables = environment(host, workload, form)
    own = [Mount(source=f"./{workload.name}/{f.name}", target=f.target, read_only=True) for f in workload.files]
    return {
        "environment": dict(variables.plain),
        "env_file": [f"./secrets/{workload.name}.env"] if variables.secret else [],
        "volumes": [_mount(mount) for mount in (*form.mounts, *own, *((_SOCKET,) if workload.controls else ()))],
    }


def _mount(mount: Mount) -> Value:
    """Return a mount in long form. What is only read must exist: Docker would put an empty folder in its place."""
    kind = "volume" if mount.volume else "bind"
    spelt: dict[str, Value] = {"type": kind, "source": mount.source, "target": mount.target}
    if mount.read_only:
        spelt["read_only"] = True
    if not mount.volume:
        spelt["bind"] = {"create_host_path": not mount.read_only}
    return spelt


def _links(workload: Workload, form: Container, running: Running) -> dict[str, Value]:
    return {
        "ports": [_port(port) for port in workload.ports if port.published is not None],
        "depends_on": {name: {"condition": _condition(*running[name])} for name in _neighbours(workload, running)},
        "healthcheck": _healthcheck(workload, form) if workload.health else None,
    }


def _port(port: Port) -> str:
    address = f"[{port.bind}]" if ":" in port.bind else port.bind
    return f"{address}:{port.published}:{port.listen}"


def _neighbours(workload: Workload, running: Running) -> list[str]:
    """Return whom compose can wait for: what is started on demand is out of its sight unless its profile is on."""
    return [name for name in workload.after if name in running and running[name][0].start is not Start.ON_DEMAND]


def _condition(neighbour: Workload, form: Container) -> str:
    """Return what to wait for; a neighbour that cannot ask itself is asked from outside, by whoever applies."""
    if neighbour.start is Start.ONCE:
        return "service_completed_successfully"
    return "service_healthy" if _test(neighbour, form) else "service_started"


def _healthcheck(workload: Workload, form: Container) -> Value:
    health, test = workload.health, _test(workload, form)
    if health is None or test is None:
        return {"disable": True}
    return {
        "test": ["CMD", *test],
        "interval": f"{health.interval}s",
        "timeout": f"{health.timeout}s",
        "retries": health.retries,
        "start_period": f"{health.start_period}s",
    }


def _test(workload: Workload, form: Container) -> list[str] | None:
    """Return the command that asks for health inside the container, None when nothing on board can."""
    health = workload.health
    if health is None or health.path is None:
        return list(health.command) if health and health.command else None
    # Not `localhost`: that may be ::1, where few servers listen.
    url = f"http://127.0.0.1:{workload.port(health.port).listen}{health.path}"
    return _ask(form.probe, url, health)


def _ask(probe: Probe, url: str, health: Health) -> list[str] | None:
    seconds = str(health.timeout)
    match probe:
        case Probe.CURL:
            return ["curl", "-fsS", "--noproxy", "*", "-o", "/dev/null", "--max-time", seconds, url]
        case Probe.WGET:
            return ["wget", "-q", "-O", "/dev/null", "-T", seconds, url]
        case Probe.PYTHON:
            opener = "u.build_opener(u.ProxyHandler({}))"
            return ["python3", "-c", f"import urllib.request as u; {opener}.open({url!r}, timeout={seconds})"]
        case Probe.NONE:
            return None


def _resources(host: PlacedHost, workload: Workload, form: Container) -> dict[str, Value]:
    claim = workload.gpu
    memory, swap = workload.memory_limit, workload.swap_limit
    limits: dict[str, Value] = {
        "memory": _bytes(memory) if memory is not None else None,
        "cpus": f"{workload.cpus:g}" if workload.cpus is not None else None,
    }
    cards = _cards(host, claim) if claim else {}
    reservations = cards.pop("reservations", None)
    resources = _without_empty({"limits": _without_empty(limits), "reservations": reservations})
    return cards | {
        "deploy": {"resources": resources} if resources else None,
        "memswap_limit": _bytes(swap) if swap is not None else None,
        "shm_size": _bytes(form.shm_size) if form.shm_size is not None else None,
        "ulimits": {"memlock": {"soft": -1, "hard": -1}} if form.locked_memory else None,
        "logging": LOGGING,
    }


def _cards(host: PlacedHost, claim: GpuClaim) -> dict[str, Value]:
    """Return how the container gets its cards; ``reservations`` belongs under ``deploy.resources``."""
    if not gpus.is_nvidia(host, claim):
        compute = ["/dev/kfd"] if claim.accelerator is Accelerator.ROCM else []
        # Numbers, not names: the images do not define these groups (llama.cpp docs/docker.md).
        return {"devices": [*compute, "/dev/dri"], "group_add": [str(group) for group in claim.group_ids]}
    vulkan = claim.accelerator is Accelerator.VULKAN
    match claim.access:
        case GpuAccess.RUNTIME:
            return {"runtime": "nvidia"}
        case GpuAccess.CDI:
            names = [f"nvidia.com/gpu={name}" for name in gpus.ids(claim)]
            device: Value = {"driver": "cdi", "device_ids": names, "capabilities": ["gpu"]}
        case _:
            wanted = _GRAPHICS if vulkan else ["gpu"]
            device = {"driver": "nvidia", "device_ids": gpus.ids(claim), "capabilities": wanted}
    return {"reservations": {"devices": [device]}}


def _runtime_variables(host: PlacedHost, claim: GpuClaim) -> dict[str, str]:
    """Return what NVIDIA's runtime reads; a card that shares the system's memory has no address of its own."""
    if claim.access is not GpuAccess.RUNTIME or not gpus.is_nvidia(host, claim):
        return {}
    wanted = "all" if claim.accelerator is Accelerator.VULKAN else "compute,utility"
    return {
        "NVIDIA_VISIBLE_DEVICES": "all" if claim.unified else ",".join(gpus.ids(claim)),
        "NVIDIA_DRIVER_CAPABILITIES": wanted,
    }


def _labels(host: PlacedHost, workload: Workload) -> dict[str, Value]:
    """Return what tells a container apart; not its memory budget: a better estimate must not restart it."""
    return {"labctl.lab": host.lab, "labctl.workload": workload.name}


def _bytes(size: int) -> str:
    for factor, unit in ((GIB, "g"), (MIB, "m")):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}b"


def _without_empty(values: Mapping[str, Value]) -> dict[str, Value]:
    """Leave out None and what holds nothing; False and 0 stay."""
    return {key: value for key, value in values.items() if value is not None and value not in ("", [], {})}


def _no_interpolation(value: Value) -> Value:
    """Double every ``$``: compose would put a variable of the applying shell there."""
    match value:
        case str():
            return value.replace("$", "$$")
        case dict() | Mapping():
            return {key: _no_interpolation(item) for key, item in value.items()}
        case list() | tuple():
            return [_no_interpolation(item) for item in value]
        case _:
            return value
