"""The text of units, section by section (systemd.unit(5), systemd.service(5), systemd.exec(5))."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from labctl.emit import refuse, shell, systemd
from labctl.emit.systemd import Section
from labctl.placed import PlacedHost
from labctl.targets import gpus, shared
from labctl.workload import Accelerator, Native, Start, Workload

Pairs = list[tuple[str, str]]

HARDENING: Final[Pairs] = [
    ("NoNewPrivileges", "yes"),
    ("PrivateTmp", "yes"),
    ("ProtectSystem", "full"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    ("RestrictNamespaces", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RestrictRealtime", "yes"),
    ("LockPersonality", "yes"),
    ("SystemCallArchitectures", "native"),
]
"""What no GPU program minds. Not here, and why:

- DevicePolicy, DeviceAllow and ProtectClock (which brings the first) hide /dev/nvidia*, /dev/dri and /dev/kfd, or list
  them as they are when the unit starts: a driver that is loaded a moment later stays out of reach.
- MemoryDenyWriteExecute stops every just-in-time compiler: CUDA's PTX, Triton, Vulkan shaders.
- ProtectHome hides models and caches of kernels that lie in a home.
- SystemCallFilter: NCCL and the drivers use calls (process_vm_readv, memory policies) that no ready-made set allows.
- ProcSubset hides /proc/meminfo and /proc/cpuinfo, from which servers choose their threads.
"""
WITHOUT_CARDS: Final[Pairs] = [("PrivateDevices", "yes")]
"""What only a program that needs no card can bear."""
_NODES: Final = ("/usr/bin/nvidia-modprobe", "-c", "0", "-u")
"""Makes /dev/nvidia-uvm (nvidia-modprobe(1)). CUDA calls it by itself, to no avail where privileges cannot be gained: a
server without a desktop would find no card until root has once used one."""


def by_user(host: PlacedHost) -> bool:
    """Whether the user's own manager runs the units."""
    return bool(host.options.get("user_units"))


def unit_name(host: PlacedHost, name: str) -> str:
    """Return the service unit of a workload."""
    return f"labctl-{host.lab}-{name}.service"


def target_name(host: PlacedHost) -> str:
    """Return the unit that holds the lab's services together."""
    return f"labctl-{host.lab}.target"


def target(host: PlacedHost, services: list[str]) -> list[Section]:
    """Return a target: starting it starts the lab's services, stopping it stops them."""
    unit: Pairs = [("Description", systemd.text(f"lab {host.lab}"))]
    unit += [("Wants", service) for service in services]
    return [("Unit", unit), ("Install", [("WantedBy", _boot(host))])]


def service(host: PlacedHost, workload: Workload, form: Native, running: Mapping[str, Workload]) -> list[Section]:
    """Return a workload's unit.

    Args:
        host: where it runs.
        workload: what runs.
        form: its native form.
        running: every workload of the host by name, to know what can be waited for.
    """
    before = [running[name] for name in workload.after if name in running]
    sections: list[Section] = [
        ("Unit", _unit(host, workload, before)),
        ("Service", _service(host, workload, form, before)),
        *([] if workload.start is Start.ONCE else [("Install", [("WantedBy", _boot(host))])]),
    ]
    return _merge(sections, workload.extra.get("systemd", {}))


def environment(host: PlacedHost, workload: Workload, form: Native) -> shared.Environment:
    """Return the service's variables, those of its cards among them."""
    own = _folders(host, workload, form) | (gpus.native(host, workload.gpu) if workload.gpu else {})
    return shared.Environment.of(workload, form, own)


def _boot(host: PlacedHost) -> str:
    return "default.target" if by_user(host) else "multi-user.target"


def _user(host: PlacedHost, form: Native) -> str | None:
    return None if by_user(host) else form.user or host.user


def runs_as(host: PlacedHost, workload: Workload, form: Native) -> str | None:
    """Return the user of a workload's service (systemd calls one it makes as the unit); None: one's own manager."""
    return None if by_user(host) else _user(host, form) or unit_name(host, workload.name).removesuffix(".service")


def _is_dynamic(host: PlacedHost, form: Native) -> bool:
    """Whether systemd makes a user for the service: nobody was named, and root is not for model servers."""
    return not by_user(host) and _user(host, form) is None


def _unit(host: PlacedHost, workload: Workload, before: list[Workload]) -> Pairs:
    pairs = [("Description", systemd.text(workload.description or f"{workload.name} of lab {host.lab}"))]
    pairs.append(("PartOf", target_name(host)))
    if not by_user(host):
        pairs += [("Wants", "network-online.target"), ("After", "network-online.target")]
    for neighbour in before:
        name = unit_name(host, neighbour.name)
        pairs += [("Wants", name)] if needs(workload, neighbour) else []
        pairs.append(("After", name))
    return pairs


def needs(workload: Workload, neighbour: Workload) -> bool:
    """Whether one is of no use without the other. Two on cards only take turns: either can be started alone."""
    return neighbour.start is Start.ALWAYS and not (workload.gpu and neighbour.gpu)


def _service(host: PlacedHost, workload: Workload, form: Native, before: list[Workload]) -> Pairs:
    return [
        *_kind(workload),
        *_identity(host, workload, form),
        *_environment(host, workload, form),
        *_credentials(host, workload, form),
        *_devices(host, workload),
        *_waiting(host, workload, before),
        ("ExecStart", _command(host, workload, form)),
        *_again(workload),
        ("TimeoutStopSec", "30"),
        *_limits(workload, form),
        ("LogRateLimitIntervalSec", "30s"),
        ("LogRateLimitBurst", "5000"),
        *_hardening(host, workload, form),
    ]


def _hardening(host: PlacedHost, workload: Workload, form: Native) -> Pairs:
    """Return what the service may not do. A user's manager has no rights to take away but one."""
    if by_user(host):
        return [("NoNewPrivileges", "yes")]
    root = _user(host, form) in {"root", "0"}
    return [
        *HARDENING,
        *([] if workload.gpu else WITHOUT_CARDS),
        *([] if root else [("CapabilityBoundingSet", "")]),
    ]


def _devices(host: PlacedHost, workload: Workload) -> Pairs:
    """Return what has to be done, as root, for the cards' device files to be there; ``-``: not every host has it."""
    claim = workload.gpu
    if by_user(host) or claim is None or claim.unified or claim.accelerator is not Accelerator.CUDA:
        return []
    return [("ExecStartPre", f"-+{systemd.command(_NODES[0], _NODES[1:])}")]


def _kind(workload: Workload) -> Pairs:
    """Return how the manager looks at the process: a server is brought back, a task has its end."""
    if workload.start is Start.ONCE:
        return [("Type", "oneshot"), ("RemainAfterExit", "yes")]
    return [("Type", "exec")]


def _again(workload: Workload) -> Pairs:
    if workload.start is Start.ONCE:
        return []
    return [("Restart", "always" if workload.start is Start.ALWAYS else "on-failure"), ("RestartSec", "10")]


def _command(host: PlacedHost, workload: Workload, form: Native) -> str:
    def place(name: str) -> str:
        stored = host.places.on_host(shared.credential_path(host, workload, name))
        return stored if by_user(host) else f"/run/credentials/{unit_name(host, workload.name)}/{name}"

    expanded = [shared.expand(argument, host, workload) for argument in form.args]
    return systemd.command(form.program, [shared.with_credentials(argument, form, place) for argument in expanded])


def _identity(host: PlacedHost, workload: Workload, form: Native) -> Pairs:
    if by_user(host):
        return [("WorkingDirectory", "%h")]
    user = _user(host, form)
    pairs: Pairs = [("User", systemd.text(user))] if user else [("DynamicUser", "yes")]
    if not user:
        folder = _cache(host, workload)
        pairs += [("CacheDirectory", folder), ("WorkingDirectory", f"%C/{folder}")]
    if workload.gpu:
        # Without them CUDA on a Jetson fails without a word (ollama#2279); AMD needs them everywhere.
        pairs.append(("SupplementaryGroups", "video render"))
    return pairs


def _cache(host: PlacedHost, workload: Workload) -> str:
    return f"labctl-{host.lab}-{workload.name}"


def _folders(host: PlacedHost, workload: Workload, form: Native) -> dict[str, str]:
    """Return a home for a user that has none: kernels and graphs that are compiled at start are kept there."""
    return {"HOME": f"/var/cache/{_cache(host, workload)}"} if _is_dynamic(host, form) else {}


def _environment(host: PlacedHost, workload: Workload, form: Native) -> Pairs:
    variables = environment(host, workload, form)
    pairs = [("Environment", systemd.variable(name, value)) for name, value in variables.plain.items()]
    if variables.secret:
        path = shared.secret_path(host, workload)
        # The manager reads it before it becomes the service's user: the file stays root's own.
        pairs.append(("EnvironmentFile", f"%h/{path}" if by_user(host) else f"/{path}"))
    return pairs


def _credentials(host: PlacedHost, workload: Workload, form: Native) -> Pairs:
    """Return what the manager copies where this service alone can read it, while it runs, and nobody can swap it out.

    A user's services read the files themselves: they are that user's.
    """
    if by_user(host):
        return []
    names = sorted(form.credentials)
    places = [host.places.on_host(shared.credential_path(host, workload, name)) for name in names]
    return [("LoadCredential", f"{name}:{place}") for name, place in zip(names, places, strict=True)]


def _waiting(host: PlacedHost, workload: Workload, before: list[Workload]) -> Pairs:
    """Return the wait for neighbours at boot. ``-``: one that never gets healthy must not keep this one down."""
    asked = [(neighbour, url) for neighbour in before if (url := health_url(neighbour))]
    task = workload.time_limit if workload.start is Start.ONCE else 0
    if not asked:
        return [("TimeoutStartSec", str(task))] if task else []
    pairs = [("ExecStartPre", f"-{_wait(host, neighbour, url)}") for neighbour, url in asked]
    return [*pairs, ("TimeoutStartSec", str(sum(patience(neighbour) for neighbour, _ in asked) + (task or 60)))]


def _wait(host: PlacedHost, neighbour: Workload, url: str) -> str:
    """Return the command that waits for a neighbour that runs; nobody waits for one that was left out or stopped."""
    manager = ["systemctl", "--user"] if by_user(host) else ["systemctl"]
    runs = shell.words([*manager, "is-active", "--quiet", unit_name(host, neighbour.name)])
    return systemd.command("/bin/sh", ["-c", f"{runs} || exit 0; exec {shell.words(curl(patience(neighbour), url))}"])


def health_url(neighbour: Workload) -> str | None:
    """Return where to ask whether a neighbour is ready, None when nobody is to wait for it."""
    if neighbour.start is not Start.ALWAYS and not neighbour.turns:
        return None
    return shared.check_url(neighbour, shared.native_port(neighbour))


def patience(neighbour: Workload) -> int:
    """Return the seconds after which a neighbour counts as failed."""
    health = neighbour.health
    return health.start_period + health.interval * health.retries if health else 0


def curl(seconds: int, url: str) -> list[str]:
    """Return the command that asks until it is answered, or until so many seconds are over."""
    retry = ["--retry", str(seconds), "--retry-delay", "1", "--retry-max-time", str(seconds), "--retry-all-errors"]
    return ["curl", "--silent", "--fail", "--noproxy", "*", "--output", "/dev/null", "--max-time", "5", *retry, url]


def _limits(workload: Workload, form: Native) -> Pairs:
    memory, swap = workload.memory_limit, workload.swap_limit
    pairs: Pairs = [("LimitMEMLOCK", "infinity")] if form.locked_memory else []
    if memory is not None:
        pairs.append(("MemoryMax", str(memory)))
    if swap is not None:
        pairs.append(("MemorySwapMax", str(max(0, swap - (memory or 0)))))
    if workload.cpus is not None:
        pairs.append(("CPUQuota", f"{workload.cpus * 100:g}%"))
    return pairs


def _merge(sections: list[Section], extra: Mapping[str, object]) -> list[Section]:
    """Lay ``extra`` over the sections: a key's pairs are replaced, None takes them away, new ones come last."""
    known = {name: list(pairs) for name, pairs in sections}
    for name, patch in extra.items():
        if not isinstance(patch, Mapping):
            refuse(f"`extra.systemd.{name}`", "a section is a mapping of keys to values")
        for key, value in patch.items():
            kept = [pair for pair in known.get(name, []) if pair[0] != key]
            known[name] = [*kept, *((str(key), text) for text in _texts(value))]
    return list(known.items())


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [str(value)]
