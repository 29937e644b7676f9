"""Target ``systemd``: one service unit per workload, run by the system's manager or, ``user_units``, by the user's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from labctl.artefact import File, HostRoot, Image, Manager, ModelFile, SecretFile, Unit
from labctl.emit import polkit, systemd
from labctl.placed import PlacedHost, Places
from labctl.targets import shared, systemd_unit
from labctl.targets.systemd_unit import unit_name
from labctl.workload import Capability, Control, Native, Start, Workload

_Rendered = File | SecretFile | ModelFile | Image | Unit | HostRoot


class Systemd:
    """Programs of the host as services that restart, log to the journal and start with the machine."""

    name = "systemd"
    by_name = False
    accepts = frozenset(
        {
            Capability.NATIVE,
            Capability.GPU,
            Capability.MEMORY_LIMIT,
            Capability.SWAP_LIMIT,
            Capability.CPU_LIMIT,
            Capability.LOCKED_MEMORY,
            Capability.ON_DEMAND,
            Capability.ONCE,
            Capability.CONFIG_FILE,
            Capability.SECRET_ENV,
            Capability.CONTROL,
        }
    )

    def network(self, host: PlacedHost) -> str | None:  # noqa: ARG002 - part of the protocol
        """There is none: programs of the host share its ports."""
        return None

    def control(self, host: PlacedHost, name: str) -> Control | None:
        """Through systemctl, as the user whose manager it is or with a rule of polkit's."""
        return Control("systemd-user" if systemd_unit.by_user(host) else "systemd", unit_name(host, name))

    def places(self, lab: str, options: Mapping[str, object], models: str | None) -> Places:
        """Return the folders; with option ``user_units`` everything lies in the user's home."""
        if options.get("user_units"):
            return Places(
                root="~",
                config=f".config/labctl/{lab}",
                state=f".local/state/labctl/{lab}",
                models=models or ".local/share/labctl/models",
            )
        return Places(
            root="/",
            config=f"etc/labctl/{lab}",
            state=f"var/lib/labctl/{lab}",
            models=models or "/var/lib/labctl/models",
        )

    def render(
        self, host: PlacedHost, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[_Rendered]:
        """Return the units, a target unit that holds them together, and the files that they read.

        Raises:
            LabctlError: LAB080 for what systemd cannot run, LAB084 for what it cannot be told.
        """
        chosen = shared.formed(workloads, self, Native)
        running = {workload.name: workload for workload, _ in chosen}
        manager = Manager.SYSTEMD_USER if systemd_unit.by_user(host) else Manager.SYSTEMD
        yield shared.root(host, manager)
        yield from models
        for workload, form in chosen:
            with shared.spelling(workload):
                content = systemd.dump(systemd_unit.service(host, workload, form, running))
                belongings = [
                    *shared.files(host, workload, systemd_unit.environment(host, workload, form).secret),
                    *shared.credentials(host, workload, form),
                    *_rule(host, workload, form),
                ]
            yield from belongings
            unit = File(host=host.name, path=_path(host, workload), content=content.encode(), origin=workload.origin)
            yield unit
            paths = [unit.path, *(f.path for f in belongings), *shared.model_paths(host, workload, models)]
            yield shared.unit(
                host,
                workload,
                manager,
                name=unit_name(host, workload.name),
                project=unit.path,
                fingerprint=shared.fingerprint(workload, content),
                files=paths,
                port=shared.native_port(workload),
            )
        if chosen:
            yield _target(host, list(running.values()))


def _rule(host: PlacedHost, workload: Workload, form: Native) -> Iterator[File]:
    """Yield what lets a workload start and stop others: a rule of polkit's. The user's own manager needs none."""
    user = systemd_unit.runs_as(host, workload, form)
    if workload.controls and user not in {None, "root"}:
        units = [unit_name(host, name) for name in workload.controls]
        path = f"etc/polkit-1/rules.d/60-{unit_name(host, workload.name).removesuffix('.service')}.rules"
        content = polkit.may_start_and_stop(str(user), units)
        yield File(host=host.name, path=path, content=content.encode(), origin=workload.origin)


def _folder(host: PlacedHost) -> str:
    return ".config/systemd/user" if systemd_unit.by_user(host) else "etc/systemd/system"


def _path(host: PlacedHost, workload: Workload) -> str:
    return f"{_folder(host)}/{unit_name(host, workload.name)}"


def _target(host: PlacedHost, workloads: Iterable[Workload]) -> File:
    always = [unit_name(host, w.name) for w in workloads if w.start is Start.ALWAYS]
    content = systemd.dump(systemd_unit.target(host, always))
    return File(host=host.name, path=f"{_folder(host)}/{systemd_unit.target_name(host)}", content=content.encode())


target = Systemd()
