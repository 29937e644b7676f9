"""The workloads of a host: each through its product's adapter, or by a form of its own, and what all of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from labctl.artefact import Format
from labctl.diagnostics import Diagnostic, DocPath, LabctlError
from labctl.placed import PlacedHost
from labctl.targets import shared
from labctl.targets.nixos import folder, program, secret, unit
from labctl.targets.nixos.container import container
from labctl.targets.nixos.needs import LOOPBACK, on_host
from labctl.targets.nixos.products import PRODUCTS, adapter
from labctl.targets.nixos.release import release
from labctl.targets.nixos.run import Made, Options, Ran, Run
from labctl.targets.nixos.values import all_of, enabled_first, override, spread
from labctl.workload import Container, Native, Start, Workload

_ONE_EACH = frozenset(PRODUCTS) - {"llama.cpp", "ollama", "labctl"}
"""Products whose module runs one instance, and that labctl has no other way to run."""


def ran(host: PlacedHost, chosen: Sequence[tuple[Workload, Container | Native]]) -> list[Ran]:
    """Return what every workload becomes, in their order.

    Raises:
        LabctlError: LAB231 and LAB233 for what the modules cannot express.
    """
    counts = Counter(workload.product for workload, _ in chosen if workload.ports)
    siblings = {workload.name: workload for workload, _ in chosen}
    of = release(str((host.machine or {}).get("release", "26.05")))
    problems: list[Diagnostic] = [*_too_many(chosen, counts)]
    refused: dict[DocPath, Sequence[Diagnostic]] = {}
    made: list[tuple[Run, Made]] = []
    for workload, form in chosen:
        alone = counts[workload.product] == 1
        run = Run(host=host, release=of, workload=workload, form=form, siblings=siblings, alone=alone)
        try:
            with shared.spelling(workload):
                made.append((run, _made(run)))
        except LabctlError as error:
            refused.setdefault(workload.origin, error.diagnostics)  # the tasks of what is refused are refused with it
    problems += [problem for some in refused.values() for problem in some]
    problems += [problem for run, item in made for problem in _unreachable(run, item)]
    if problems:
        raise LabctlError(list(dict.fromkeys(problems)))
    units = {run.workload.name: item.unit for run, item in made}
    return [_finished(run, item, units) for run, item in made]


def _made(run: Run) -> Made:
    """Return what a workload becomes: by its product's module, else as its best form says.

    An image that lab.yaml names is what runs: a module's package would be another program.
    """
    named = any(isinstance(form, Container) and form.chosen for form in run.workload.forms)
    known = None if named else adapter(run.workload.product)
    found = known(run) if known else None
    if found is not None:
        return found
    if isinstance(run.form, Container):
        if run.form.build is not None or run.workload.start is Start.ONCE:
            raise LabctlError([_built(run) if run.form.build else _task(run)])
        return container(run, run.form)
    return program.service(run, run.form, name=program.own_name(run.host, run.workload))


def _finished(run: Run, made: Made, units: Mapping[str, str]) -> Ran:
    workload, host = run.workload, run.host
    name = f"{workload.name}.env"
    with shared.spelling(workload):
        extra = spread(workload.extra.get("nixos", {}))
        options: Options = all_of(
            [
                made.options,
                unit.common(run, made, units),
                unit.rights(run, made, units),
                secret.environment(host, name, made.secrets) if made.secrets else {},
                *(
                    secret.credential(host, program.credential_name(workload, key), text)
                    for key, text in sorted(made.credentials.items())
                ),
            ]
        )
    written = [*secret.files(host, name, made.secrets, Format.ENV, workload.origin)]
    for key, text in sorted(made.credentials.items()):
        path = program.credential_name(workload, key)
        written += secret.files(host, path, {key: text}, Format.RAW, workload.origin)
    return Ran(run=run, made=made, options=override(options, extra), artefacts=tuple(written))


def _too_many(chosen: Iterable[tuple[Workload, Container | Native]], counts: Mapping[str, int]) -> Iterable[Diagnostic]:
    """Yield a problem for every further workload of a product whose module has one instance."""
    seen: dict[str, str] = {}
    for workload, _ in chosen:
        if workload.product in _ONE_EACH and workload.ports and counts[workload.product] > 1:
            first = seen.setdefault(workload.product, workload.name)
            if first != workload.name:
                yield Diagnostic(
                    code="LAB231",
                    summary=f"NixOS runs one {workload.product} per machine, and `{workload.host}` has `{first}` too",
                    path=workload.origin or None,
                    hint="put one of them on another host, or on one with `target: compose`",
                )


def _built(run: Run) -> Diagnostic:
    return Diagnostic(
        code="LAB231",
        summary=f"`{run.workload.name}` has an image that is built on its host, which NixOS has no place for",
        path=run.workload.origin or None,
        hint="name an image of a registry with `image:`, or choose an engine or gateway that is not built",
    )


def _task(run: Run) -> Diagnostic:
    return Diagnostic(
        code="LAB231",
        summary=f"`{run.workload.name}` is a task in a container, and NixOS' containers are services that run on",
        path=run.workload.origin or None,
        hint="leave out what the task is for, or put it on a host with `target: compose` or `k3s`",
    )


def _unreachable(run: Run, made: Made) -> Iterable[Diagnostic]:
    """Yield a problem for a container that calls neighbours: their loopback addresses are not its own."""
    if not isinstance(made.form, Container) or made.module:
        return
    for other in run.siblings.values():
        calls = run.workload.name in (other.serves_to or ())
        if calls and any(on_host(p, other.forms[0]) and p.bind.startswith(LOOPBACK) for p in other.ports):
            yield Diagnostic(
                code="LAB233",
                summary=f"`{run.workload.name}` runs in a container, from where `{other.name}` cannot be reached",
                path=run.workload.origin or None,
                hint=f"put `{run.workload.name}` on a host with `target: compose`, or `{other.name}` on another host",
            )


def module(of: Sequence[Ran]) -> Options:
    """Return the body of ``services.nix``."""
    docker: Options = {"virtualisation": {"oci-containers": {"backend": "docker"}}}
    contained = any(isinstance(item.made.form, Container) and not item.made.module for item in of)
    return enabled_first(all_of([*([docker] if contained else []), *(item.options for item in of)]))


def file_path(host: PlacedHost, workload: Workload, name: str) -> str:
    """Return the tree path of a workload's file among the modules."""
    return folder.module(host, f"files/{workload.name}/{name}")
