"""Which secrets a lab needs, where they come from, and which of them are missing. No value is read here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from labctl.diagnostics import Diagnostic, DocPath, Severity
from labctl.model.lab import Secrets
from labctl.secrets import Command, EnvFile, Environment, Source
from labctl.workload import SecretText, Workload

NOTHING: Final[Mapping[str, DocPath]] = MappingProxyType({})


def needed(workloads: Iterable[Workload]) -> dict[str, DocPath]:
    """Return every secret's name and the part of lab.yaml that first needs it, sorted by name."""
    found: dict[str, DocPath] = {}
    for workload in workloads:
        for values in (workload.env, *(form.env for form in workload.forms)):
            for value in values.values():
                for name in value.names if isinstance(value, SecretText) else ():
                    found.setdefault(name, workload.origin)
    return dict(sorted(found.items()))


def source_of(secrets: Secrets, wanted: Iterable[str], folder: Path) -> Source:
    """Return the source that lab.yaml names; file names are relative to the lab's folder."""
    if isinstance(secrets.source, dict):
        return Command(secrets.source["command"], folder)
    if secrets.source == "environment":
        return Environment(frozenset(wanted))
    return EnvFile(folder / secrets.source)


def missing_secrets(
    secrets: Secrets, workloads: Iterable[Workload], folder: Path, others: Mapping[str, DocPath] = NOTHING
) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each needed secret that the source does not have.

    ``others`` are not a workload's: their names, and the parts of lab.yaml that ask for them.

    A source that is not there, or that a program would have to be run for, is not an error yet: a lab can be checked
    without its secrets.
    """
    everything = {**others, **needed(workloads)}
    wanted = {n: everything[n] for n in sorted(everything) if n not in secrets.generate}
    source = source_of(secrets, wanted, folder)
    if not wanted or isinstance(source, Command):
        return
    if isinstance(source, Environment) or (isinstance(source, EnvFile) and not source.path.exists()):
        yield from _later(source, wanted)
        return
    names = source.names()
    yield from names.diagnostics
    for name, origin in wanted.items():
        if names.value is not None and name not in names.value:
            yield Diagnostic(
                code="LAB094",
                summary=f"secret `{name}` is needed, and `{secrets.source}` does not define it",
                path=origin,
                hint=f"add a line `{name}=…` to it, or let labctl invent it: `secrets: {{generate: {name}}}`",
            )


def _later(source: EnvFile | Environment, wanted: dict[str, DocPath]) -> Iterator[Diagnostic]:
    known = source.names().value or frozenset() if isinstance(source, Environment) else frozenset()
    absent = [n for n in wanted if n not in known]
    if absent:
        where = "the environment" if isinstance(source, Environment) else f"`{source.path.name}`"
        yield Diagnostic(
            code="LAB095",
            severity=Severity.WARNING,
            summary=f"applying this lab needs {_count(absent)} that {where} does not define yet",
            path=("secrets",),
            hint="it has to define " + ", ".join(absent),
        )


def _count(names: list[str]) -> str:
    return f"{len(names)} secret{'' if len(names) == 1 else 's'}"
