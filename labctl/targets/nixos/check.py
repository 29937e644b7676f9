"""What is wrong with a system before it is written down: said as diagnostics, so that nixos-rebuild need not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from labctl.diagnostics import At, Diagnostic, DocPath, LabctlError
from labctl.placed import PlacedHost
from labctl.targets.nixos import folder, machine, options, system
from labctl.targets.nixos.needs import Needs
from labctl.targets.nixos.options import Kind, Problem
from labctl.targets.nixos.run import Options, Ran
from labctl.targets.nixos.values import spread

_CODES: Final = {Kind.SECRET: "LAB236", Kind.CONFLICT: "LAB234"}
"""What is wrong with an option → code; LAB230 for anything else."""


def check(host: PlacedHost, needs: Needs, of: Sequence[Ran], modules: Mapping[str, Options]) -> None:
    """Raise LabctlError with everything that is wrong; options only where the machine itself can be."""
    found = [*machine.problems(host, needs), *_unfree(host, needs), *_names(of)]
    found += _imports(host, of)
    if not any(problem.is_error for problem in found):
        found += _options(host, of, modules)
    if found:
        raise LabctlError(found)


def _names(of: Sequence[Ran]) -> Iterator[Diagnostic]:
    for item in of:
        if item.run.workload.name in {folder.SYSTEM_UNIT, *machine.NAMES}:
            yield Diagnostic(
                code="LAB235",
                summary=f"`{item.run.workload.name}` is what a part of the system is called on a NixOS host",
                path=item.run.workload.origin or None,
                hint="give it another name",
            )


def _unfree(host: PlacedHost, needs: Needs) -> Iterator[Diagnostic]:
    names = sorted(system.unfree_names(host, needs))
    if names and (host.machine or {}).get("unfree") is False:
        yield Diagnostic(
            code="LAB232",
            summary=f"`{host.name}` needs packages without a free licence, which it does not allow: {', '.join(names)}",
            path=(*host.origin, "nixos", "unfree"),
            hint="write `unfree: true`, which allows these and no others",
        )


def _imports(host: PlacedHost, of: Sequence[Ran]) -> Iterator[Diagnostic]:
    """Yield a problem for `imports` among options of the user's own: it would take the place of labctl's."""
    places: list[tuple[object, DocPath]] = [((host.machine or {}).get("options"), (*host.origin, "nixos", "options"))]
    places += [(r.run.workload.extra.get("nixos"), (*r.run.workload.origin, "extra", "nixos")) for r in of]
    for own, path in places:
        if isinstance(own, Mapping) and "imports" in own:
            yield Diagnostic(
                code="LAB230",
                summary="`imports` names modules and is no option",
                path=path,
                hint="write the options themselves here, or into the file that `hardware:` names",
            )


def _options(host: PlacedHost, of: Sequence[Ran], modules: Mapping[str, Options]) -> Iterator[Diagnostic]:
    """Yield what the release would refuse of the definitions, each at the part of lab.yaml that it comes from."""
    release = str((host.machine or {}).get("release", "26.05"))
    whole = options.merged(cast("Mapping[str, object]", body) for body in modules.values())
    given = bool((host.machine or {}).get("hardware"))  # the file that the installer wrote has the disks
    for problem in options.check(whole, release, whole=not given):
        path, own = _origin(host, of, problem)
        if own and problem.kind is Kind.UNCHECKED:
            continue
        hint = problem.remedy[0].lower() + problem.remedy[1:]
        yield Diagnostic(
            code=_CODES.get(problem.kind, "LAB230"),
            summary=f"{problem.message} (host `{host.name}`)",
            path=path,
            at=At.KEY,
            hint=hint if own else f"{hint}; labctl wrote this itself: please report it as a bug",
        )


def _origin(host: PlacedHost, of: Sequence[Ran], problem: Problem) -> tuple[DocPath, bool]:
    """Return what asked for an option, and whether it was an option of the user's own."""
    if _says((host.machine or {}).get("options"), problem):
        return (*host.origin, "nixos", "options"), True
    for item in of:
        if _says(item.run.workload.extra.get("nixos"), problem):
            return (*item.run.workload.origin, "extra", "nixos"), True
    conflict = problem.kind is Kind.CONFLICT
    for item in of:
        if _reaches(item.made.options, problem.path):
            return item.run.workload.origin, conflict
    return host.origin, conflict


def _says(own: object, problem: Problem) -> bool:
    return isinstance(own, Mapping) and _reaches(spread(own), problem.path)


def _reaches(definitions: object, path: Sequence[str]) -> bool:
    """Whether definitions have something at a path, or end on the way to it with a value."""
    if not path or not isinstance(definitions, Mapping):
        return True
    return path[0] in definitions and _reaches(definitions[path[0]], path[1:])
