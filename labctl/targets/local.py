"""Target ``local``: programs of this machine under one supervisord of the user's own; no root, no containers.

The rendered file is the same on every machine: ``%(here)s`` is its own folder, and whoever starts supervisord sets
``LABCTL_PYTHON`` to the Python that has labctl. supervisord first binds its socket under a longer name: a root of up to
80 bytes is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Final

from labctl.artefact import File, HostRoot, Image, Manager, ModelFile, SecretFile, Unit
from labctl.emit import ini
from labctl.placed import PlacedHost, Places
from labctl.targets import gpus, shared
from labctl.workload import Capability, Control, Native, SecretText, Start, Workload

FILE: Final = "supervisord.conf"
LOGS: Final = "logs"
SOCKET: Final = "supervisor.sock"
_Rendered = File | SecretFile | ModelFile | Image | Unit | HostRoot
_Pairs = list[tuple[str, str]]


class Local:
    """A lab on the machine one sits at, e.g. the quickstart."""

    name = "local"
    by_name = False
    accepts = frozenset(
        {
            Capability.NATIVE,
            Capability.OWN_PYTHON,
            Capability.GPU,
            Capability.CONFIG_FILE,
            Capability.SECRET_ENV,
            Capability.ON_DEMAND,
            Capability.ONCE,
            Capability.CONTROL,
        }
    )

    def network(self, host: PlacedHost) -> str | None:  # noqa: ARG002 - part of the protocol
        """There is none: programs of the host share its ports."""
        return None

    def control(self, host: PlacedHost, name: str) -> Control | None:  # noqa: ARG002 - part of the protocol
        """Through supervisord's socket; programs run in the folder that it lies in."""
        return Control("supervisor", name, SOCKET)

    def places(self, lab: str, options: Mapping[str, object], models: str | None) -> Places:
        """Return the folders; option ``dir`` moves the whole tree away from ``~/.local/state/labctl/<lab>``."""
        root = str(options.get("dir") or f"~/.local/state/labctl/{lab}")
        return Places(root=root, config=".", state="state", models=models or "models")

    def render(
        self, host: PlacedHost, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[_Rendered]:
        """Return supervisord's configuration and the files that its programs read.

        Raises:
            LabctlError: LAB080 for what supervisor cannot run, LAB084 for what it cannot be told.
        """
        chosen = shared.formed(workloads, self, Native)
        ranks = _ranks([workload for workload, _ in chosen])
        sections = _daemon(host)
        yield shared.root(host, Manager.SUPERVISOR)
        yield from models
        for workload, form in chosen:
            with shared.spelling(workload):
                variables = _environment(host, workload, form)
                section = (f"program:{workload.name}", _program(host, workload, form, ranks[workload.name]))
                text = ini.dump([section])
            sections.append(section)
            belongings = [
                *shared.files(host, workload, variables.secret),
                *shared.credentials(host, workload, form),
            ]
            yield from belongings
            paths = [*(f.path for f in belongings), *shared.model_paths(host, workload, models)]
            yield shared.unit(
                host,
                workload,
                Manager.SUPERVISOR,
                name=workload.name,
                project=_place(host, FILE),
                fingerprint=shared.fingerprint(workload, text),
                files=paths,
                port=shared.native_port(workload),
            )
        if chosen:
            yield File(host=host.name, path=_place(host, LOGS, ".keep"), content=b"")
            yield File(host=host.name, path=_place(host, FILE), content=ini.dump(sections).encode())


def _place(host: PlacedHost, *names: str) -> str:
    return shared.join(host.places.config, *names)


def _daemon(host: PlacedHost) -> list[ini.Section]:
    socket = f"%(here)s/{SOCKET}"
    daemon: _Pairs = [
        ("identifier", f"labctl-{host.lab}"),
        ("directory", "%(here)s"),
        ("pidfile", "%(here)s/supervisord.pid"),
        ("logfile", f"%(here)s/{LOGS}/supervisord.log"),
        ("logfile_maxbytes", "10MB"),
        ("logfile_backups", "1"),
        ("childlogdir", f"%(here)s/{LOGS}"),
    ]
    factory = "supervisor.rpcinterface:make_main_rpcinterface"
    return [
        ("supervisord", daemon),
        ("unix_http_server", [("file", socket), ("chmod", "0700")]),
        ("rpcinterface:supervisor", [("supervisor.rpcinterface_factory", factory)]),
        ("supervisorctl", [("serverurl", f"unix://{socket}")]),
    ]


def _program(host: PlacedHost, workload: Workload, form: Native, rank: int) -> _Pairs:
    variables = _environment(host, workload, form)
    once = workload.start is Start.ONCE
    again = {Start.ALWAYS: "true", Start.ON_DEMAND: "unexpected", Start.ONCE: "false"}[workload.start]
    pairs = [
        ("command", ini.command(_command(host, workload, form, variables))),
        ("directory", "%(here)s"),
        # Started by labctl, in order and when the ones before are healthy; supervisord would start all at once.
        ("autostart", "false"),
        ("autorestart", again),
        ("startsecs", "0" if once else "1"),
        ("startretries", "0" if once else "5"),
        ("priority", str(100 + 10 * rank)),
        ("stopwaitsecs", "20"),
        ("stopasgroup", "true"),
        ("killasgroup", "true"),
        ("stdout_logfile", f"%(here)s/{LOGS}/{workload.name}.log"),
        ("stdout_logfile_maxbytes", "10MB"),
        ("stdout_logfile_backups", "2"),
        ("redirect_stderr", "true"),
    ]
    return pairs + ([("environment", ini.environment(variables.plain))] if variables.plain else [])


def _command(
    host: PlacedHost, workload: Workload, form: Native, variables: shared.Environment
) -> list[str | ini.Expansion]:
    """Return the words to run; ``labctl.run_env`` starts what has secrets and reads them from a file."""
    python = ini.Expansion("ENV_LABCTL_PYTHON")

    def place(name: str) -> str:
        return host.places.on_host(shared.credential_path(host, workload, name))

    expanded = [shared.expand(word, host, workload) for word in (form.program, *form.args)]
    words = [shared.with_credentials(word, form, place) for word in expanded]
    own: list[str | ini.Expansion] = [python if word == "{python}" else word for word in words]
    if not variables.secret:
        return own
    return [python, "-m", "labctl.run_env", shared.secret_path(host, workload), "--", *own]


def _environment(host: PlacedHost, workload: Workload, form: Native) -> shared.Environment:
    """Return the variables; what supervisor's quoting cannot hold goes into the file with the secrets."""
    cards = gpus.native(host, workload.gpu) if workload.gpu else {}
    found = shared.Environment.of(workload, form, cards)
    plain = {name: value for name, value in found.plain.items() if ini.speakable(value)}
    rest = {name: SecretText((value,)) for name, value in found.plain.items() if name not in plain}
    return shared.Environment(plain, {**rest, **found.secret})


def _ranks(workloads: Sequence[Workload]) -> dict[str, int]:
    """Return how many steps of ``after`` lie before each workload."""
    names = {workload.name for workload in workloads}
    before = {workload.name: names.intersection(workload.after) for workload in workloads}
    ranks: dict[str, int] = {}
    for name in TopologicalSorter(before).static_order():
        ranks[name] = 1 + max((ranks[earlier] for earlier in before[name]), default=-1)
    return ranks


target = Local()
