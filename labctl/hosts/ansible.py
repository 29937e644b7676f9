"""Bringing files to hosts by Ansible: one run of one static playbook, for all hosts that are ready at the same time.

Ansible gets to see a bundle per host, made of files that may be shown. Secret files are laid into the host's staging
folder by labctl itself; of them the bundle has names only. A sudo password goes from memory to Ansible's prompt.
Ansible and ansible-runner are imported when the first file has to be brought.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError
from labctl.hosts.disk import unless_said_full
from labctl.secrets import Secret
from labctl.values import dataclass

PLAYBOOKS: Final = Path(__file__).parent / "playbooks"
GRACE: Final = 0.4
"""Seconds that a host waits for others that are about to be ready: a run for three takes half the CPU of three runs."""
FORKS: Final = 10
"""Hosts that Ansible works on at the same time."""
TIMEOUT: Final = 900
"""Seconds for a whole run."""
LAST_LINES: Final = 20
PASSED_ON: Final = frozenset(
    {"HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "LANG", "LANGUAGE", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "TMPDIR"}
)
"""What Ansible sees of the environment, beside ``LC_*`` and ``LABCTL_*``: ansible-runner notes it in a file, and our
environment may hold secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a host is reached: over the connection that labctl has already.

    Attributes:
        address: name or address, as OpenSSH knows it.
        options: of ssh, the control path among them.
        program: the ssh program.
        sudo: become root by sudo, with ``password`` if there is one.
        python: the host's Python.
    """

    address: str
    options: tuple[str, ...] = ()
    program: str = "ssh"
    user: str | None = None
    port: int | None = None
    sudo: bool = False
    password: Secret | None = None
    python: str = "python3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What one host is brought: a bundle for its staging folder."""

    host: str
    reach: Reach
    staging: str
    bundle: bytes


Delivery = Mapping[str, Any]
"""What the module ``labctl_place`` answered."""
_Waiting = tuple[Parcel, "Future[Delivery]"]


class Courier:
    """Brings parcels. Hosts call from threads of their own; those that come together share a run.

    Args:
        coming: hosts that may bring something; each has to call ``bring`` or ``leave`` in the end.
    """

    def __init__(self, coming: Iterable[str] = ()) -> None:
        self._coming = set(coming)
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()

    def leave(self, host: str) -> None:
        """Say that nobody has to wait for a host."""
        with self._changed:
            self._coming.discard(host)
            self._changed.notify_all()

    def bring(self, parcel: Parcel) -> Delivery:
        """Bring a parcel and return what the host answered. HostError (LAB147, LAB148) when that does not work."""
        mine: Future[Delivery] = Future()
        batch: list[_Waiting] = []
        with self._changed:
            self._coming.discard(parcel.host)
            self._waiting.append((parcel, mine))
            self._changed.notify_all()
            if len(self._waiting) == 1:
                self._changed.wait_for(lambda: not self._coming, GRACE)
                batch, self._waiting = self._waiting, []
        for some in _by_password(batch):
            _settle(some)
        return mine.result()


def _by_password(batch: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Return the parts of a batch that can be brought in one run: Ansible asks for one sudo password."""
    parts: list[list[_Waiting]] = []
    for item in batch:
        for part in parts:
            if part[0][0].reach.password == item[0].reach.password:
                part.append(item)
                break
        else:
            parts.append([item])
    return parts


def _settle(batch: Sequence[_Waiting]) -> None:
    """Bring a batch and tell every host how it went."""
    try:
        run = _Run()
        run.go([parcel for parcel, _ in batch])
    except Exception as error:
        for _, future in batch:
            future.set_exception(error)
        if not isinstance(error, HostError):
            raise
        return
    for parcel, future in batch:
        problem = run.problem(parcel.host)
        if problem is None:
            future.set_result(run.answers[parcel.host])
        else:
            future.set_exception(HostError(problem))


@dataclass(slots=True)
class _Run:
    """One run of the playbook: what Ansible said about each host."""

    answers: dict[str, Delivery] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    """host → what failed, and the message."""
    printed: list[str] = field(default_factory=list)
    status: str = ""

    def go(self, parcels: Sequence[Parcel]) -> None:
        """Run Ansible. Everything that it writes is in a folder of our own, which is removed."""
        runner = _import_runner()
        with tempfile.TemporaryDirectory(prefix="labctl-ansible-", ignore_cleanup_errors=True) as folder:
            inventory = {p.host: _variables(p, _pack(folder, i, p)) for i, p in enumerate(parcels)}
            password = parcels[0].reach.password
            running = runner.interface.init_runner(
                private_data_dir=folder,
                project_dir=str(PLAYBOOKS),
                playbook="place.yml",
                inventory={"all": {"hosts": inventory}},
                forks=min(FORKS, len(parcels)),
                envvars=_settings(folder),
                settings={"suppress_output_file": True},
                suppress_env_files=True,
                cmdline="--ask-become-pass" if password else None,
                passwords={r"BECOME password.*:\s*$": password.reveal()} if password else None,
                quiet=True,
                timeout=TIMEOUT,
                event_handler=self._event,
                cancel_callback=lambda: False,
            )
            running.config.env = _environment(running.config.env)
            running.run()
            self.status = running.status

    def _event(self, event: Mapping[str, Any]) -> bool:
        """Take note of an event; nothing of it is kept on disk."""
        self.printed += [line for line in event.get("stdout", "").splitlines() if line.strip()]
        data = event.get("event_data", {})
        host, task, result = data.get("host", ""), data.get("task", ""), data.get("res") or {}
        match event.get("event"):
            case "runner_on_ok" if "placed" in result:
                self.answers[host] = result
            case "runner_on_failed":
                self.problems[host] = (f"could not {task}", _message(result))
            case "runner_on_unreachable":
                self.problems[host] = ("could not reach it", _message(result))
        return False

    def problem(self, host: str) -> Diagnostic | None:
        """Return what kept a host from being brought its files."""
        if host in self.answers:
            return None
        what, message = self.problems.get(host, (f"came to no end ({self.status})", ""))
        detail = message or "\n".join(self.printed[-LAST_LINES:])
        summary = f"`{host}` was not brought its files: Ansible {what}"
        return unless_said_full(host, detail, Diagnostic(code="LAB148", summary=summary, detail=detail))


def _import_runner() -> Any:
    try:
        importlib.import_module("ansible")
        importlib.import_module("ansible_runner.interface")
        return importlib.import_module("ansible_runner")
    except ImportError as error:
        summary = f"Ansible cannot be used: {error}"
        hint = "install labctl again: ansible-core and ansible-runner come with it"
        raise HostError(Diagnostic(code="LAB147", summary=summary, hint=hint)) from error


def _pack(folder: str, number: int, parcel: Parcel) -> str:
    """Write a host's bundle where Ansible fetches it, and return the path."""
    path = Path(folder) / f"bundle-{number}.tar"
    path.write_bytes(parcel.bundle)
    return str(path)


def _variables(parcel: Parcel, bundle: str) -> Mapping[str, object]:
    """Return what Ansible has to know about a host."""
    reach = parcel.reach
    known: dict[str, object] = {
        "ansible_connection": "ssh",
        "ansible_host": reach.address,
        "ansible_ssh_executable": reach.program,
        "ansible_ssh_args": _quoted(("-o", "BatchMode=yes", *reach.options)),
        "ansible_python_interpreter": reach.python,
        "labctl_bundle": bundle,
        "labctl_staging": parcel.staging,
    }
    optional = {"ansible_user": reach.user, "ansible_port": reach.port}
    become = {"ansible_become": True, "ansible_become_method": "sudo"} if reach.sudo else {}
    return {**known, **{k: v for k, v in optional.items() if v is not None}, **become}


def _quoted(words: Iterable[str]) -> str:
    import shlex  # noqa: PLC0415

    return shlex.join(words)


def _settings(folder: str) -> Mapping[str, str]:
    """Return where Ansible finds its settings and keeps what it writes: nothing of the user's own is read or left."""
    return {
        "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
        "ANSIBLE_HOME": f"{folder}/home",
        "ANSIBLE_LOCAL_TEMP": f"{folder}/local",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_NOCOLOR": "1",
    }


def _environment(full: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment of Ansible without whatever else is in ours."""
    own = str(Path(sys.executable).parent)
    made = ("ANSIBLE_", "AWX_", "RUNNER_", "LC_", "LABCTL_")
    theirs = {name for name in os.environ if name.startswith("ANSIBLE_")}
    ours = _settings("").keys() | {"ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_STDOUT_CALLBACK"}
    kept = {n: v for n, v in full.items() if n in PASSED_ON or n.startswith(made)}
    kept = {n: v for n, v in kept.items() if n not in theirs or n in ours}
    return {**kept, "PATH": f"{own}{os.pathsep}{full.get('PATH', os.defpath)}", "PYTHONUNBUFFERED": "1"}


def _message(result: Mapping[str, Any]) -> str:
    """Return the words of a failed task."""
    parts = [str(result.get(name, "")).strip() for name in ("msg", "module_stderr", "stderr")]
    return "\n".join(dict.fromkeys(part for part in parts if part))
