"""What several targets do the same way. A target uses these; nothing makes it do so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar, cast

from labctl.artefact import File, Format, HostRoot, Manager, ModelFile, SecretFile, Unit
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.emit import EmitError, Value
from labctl.placed import PlacedHost
from labctl.targets import Target
from labctl.targets.capabilities import choose_form
from labctl.values import dataclass
from labctl.workload import Container, EnvValue, Native, SecretText, Workload

F = TypeVar("F", Container, Native)


@dataclass(frozen=True, slots=True)
class Environment:
    """A workload's variables, apart: what may be shown and what may not."""

    plain: Mapping[str, str]
    secret: Mapping[str, SecretText]

    @classmethod
    def of(cls, workload: Workload, form: Container | Native, defaults: Mapping[str, str]) -> Environment:
        """Return ``defaults``, overridden by the workload's and the form's own variables."""
        values: dict[str, EnvValue] = {**defaults, **workload.env, **form.env}
        plain = {name: text for name, value in values.items() if (text := literal(value)) is not None}
        secret = {name: v for name, v in values.items() if isinstance(v, SecretText) and name not in plain}
        return cls(plain, secret)


def literal(value: EnvValue) -> str | None:
    """Return a value without secrets as text, None when it has some."""
    if isinstance(value, str):
        return value
    return None if value.names else "".join(part for part in value.parts if isinstance(part, str))


def formed(workloads: Iterable[Workload], target: Target, kind: type[F]) -> list[tuple[Workload, F]]:
    """Return the workloads, by name, with the form that the target runs; LabctlError with every LAB080 there is."""
    chosen = [(w, choose_form(w, target)) for w in sorted(workloads, key=lambda w: w.name)]
    problems = [form for _, form in chosen if isinstance(form, Diagnostic)]
    if problems:
        raise LabctlError(problems)
    return [(_with_files(workload, form), form) for workload, form in chosen if isinstance(form, kind)]


def _with_files(workload: Workload, form: Container | Native) -> Workload:
    """Return the workload with the files of the form that is run."""
    more = form.files if isinstance(form, Native) else ()
    return replace(workload, files=(*workload.files, *more)) if more else workload


@contextmanager
def spelling(workload: Workload) -> Iterator[None]:
    """Turn an EmitError into LAB084 at the part of lab.yaml that asked for the workload."""
    try:
        yield
    except EmitError as error:
        summary = f"`{workload.name}` has something that its target cannot write"
        hint = "change the value, or put it into a configuration file"
        found = Diagnostic(code="LAB084", summary=summary, detail=str(error), path=workload.origin or None, hint=hint)
        raise LabctlError([found]) from error


def join(folder: str, *names: str) -> str:
    """Return a tree path below a folder of ``Places``, which may be ``.``."""
    return "/".join(part for part in (folder, *names) if part != ".")


def config_path(host: PlacedHost, workload: Workload, name: str) -> str:
    """Return the tree path of one of a workload's configuration files."""
    return join(host.places.config, workload.name, name)


def secret_path(host: PlacedHost, workload: Workload) -> str:
    """Return the tree path of a workload's secret variables."""
    return join(host.places.config, "secrets", f"{workload.name}.env")


def files(host: PlacedHost, workload: Workload, secret: Mapping[str, SecretText]) -> list[File | SecretFile]:
    """Return a workload's configuration files and, when it has secrets, their file."""
    found: list[File | SecretFile] = [
        File(
            host=host.name,
            path=config_path(host, workload, file.name),
            content=file.content.encode(),
            mode=file.mode,
            origin=workload.origin,
        )
        for file in workload.files
    ]
    if secret:
        path = secret_path(host, workload)
        found.append(SecretFile(host=host.name, path=path, entries=secret, origin=workload.origin))
    return found


def credential_path(host: PlacedHost, workload: Workload, name: str) -> str:
    """Return the tree path of a secret that a program reads from a file of its own."""
    return join(host.places.config, "secrets", workload.name, name)


def credentials(host: PlacedHost, workload: Workload, form: Native) -> list[SecretFile]:
    """Return the secrets that a program reads from files, one file each."""
    return [
        SecretFile(
            host=host.name,
            path=credential_path(host, workload, name),
            entries={name: secret},
            format=Format.RAW,
            origin=workload.origin,
        )
        for name, secret in sorted(form.credentials.items())
    ]


def with_credentials(argument: str, form: Native, place: Callable[[str], str]) -> str:
    """Fill in ``{credential:NAME}`` with ``place(NAME)``."""
    for name in form.credentials:
        argument = argument.replace(f"{{credential:{name}}}", place(name))
    return argument


def model_paths(host: PlacedHost, workload: Workload, models: Sequence[ModelFile | File]) -> list[str]:
    """Return the tree paths of the model files that a workload reads and that labctl looks after."""
    known = {model.path for model in models}
    folder = host.places.in_tree(host.places.models)
    return [path for name in workload.models if (path := f"{folder}/{name}") in known]


def root(host: PlacedHost, manager: Manager) -> HostRoot:
    """Return where a host's part of the tree lands."""
    places = host.places
    return HostRoot(
        host=host.name,
        root=places.root,
        state=places.state,
        managers=(manager,),
        address=host.address,
        login=host.login,
    )


def unit(  # noqa: PLR0913 - a Unit has this many facts that a target decides
    host: PlacedHost,
    workload: Workload,
    manager: Manager,
    *,
    name: str,
    project: str,
    fingerprint: str,
    files: Sequence[str],
    port: int | None,
) -> Unit:
    """Return the unit of a workload.

    Args:
        host: where it runs.
        workload: what runs.
        manager: who runs it.
        name: how the manager calls it.
        project: tree path of the file that the manager loads.
        fingerprint: see ``fingerprint``.
        files: tree paths whose change restarts it.
        port: the port on the host that its health is asked on; None when the host cannot reach it.
    """
    return Unit(
        host=host.name,
        name=workload.name,
        id=name,
        manager=manager,
        project=project,
        fingerprint=fingerprint,
        files=tuple(files),
        after=workload.after,
        health=workload.health,
        check=check_url(workload, port),
        start=workload.start,
        time_limit=workload.time_limit,
        turns=workload.turns,
        origin=workload.origin,
        description=workload.description,
    )


def fingerprint(workload: Workload, definition: object) -> str:
    """Return the SHA-256 over what a workload renders to and its configuration files."""
    content = [[file.name, file.content, file.mode] for file in workload.files]
    text = json.dumps([definition, content], ensure_ascii=False, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def check_url(workload: Workload, port: int | None) -> str | None:
    """Return where the host itself can ask for a workload's health, given the port on the host; None for nowhere."""
    health = workload.health
    if health is None or health.path is None or port is None:
        return None
    return f"http://{reachable(workload.port(health.port).bind)}:{port}{health.path}"


def native_port(workload: Workload) -> int | None:
    """Return the port on the host that a native program's health is asked on."""
    if workload.health is None or workload.health.path is None:
        return None
    port = workload.port(workload.health.port)
    return port.published or port.listen


def reachable(bind: str) -> str:
    """Return the address, as in a URL, at which the host itself reaches a port bound to ``bind``."""
    address = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 - compared, not bound
    return f"[{address}]" if ":" in address else address


def expand(argument: str, host: PlacedHost, workload: Workload) -> str:
    """Fill in ``{config:NAME}`` with the file's place on the host."""
    for file in workload.files:
        place = host.places.on_host(config_path(host, workload, file.name))
        argument = argument.replace(f"{{config:{file.name}}}", place)
    return argument


def merge(base: Mapping[str, Value], patch: Mapping[str, object]) -> dict[str, Value]:
    """Return ``base`` with ``patch`` over it: mappings merge, all else replaces, None takes a key away."""
    merged: dict[str, Value] = dict(base)
    for key, value in patch.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = cast("Value", value)
    return merged
