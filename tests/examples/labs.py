"""The examples as tests see them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from unittest.mock import patch

from labctl.artefact import Artefact, File, ModelFile, SecretFile, Tree, Unit
from labctl.usecases import Loaded, load, validate
from labctl.views.diagnostics import render_diagnostics

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NAMES = tuple(sorted(path.parent.name for path in EXAMPLES.glob("*/lab.yaml")))


@contextmanager
def bare(folder: Path) -> Iterator[None]:
    """Work in a folder, with an environment that holds nothing of the person who runs the tests."""
    before = Path.cwd()
    with patch.dict(os.environ, {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, clear=True):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def example(name: str) -> Loaded:
    """Load an example that has no errors."""
    with bare(EXAMPLES / name):
        loaded = load(Path("lab.yaml"))
    assert loaded.ok, said(loaded)
    return loaded


def tree(loaded: Loaded) -> Tree:
    """Return what a lab renders to."""
    assert loaded.ok, said(loaded)
    return loaded.need_rendered().tree


def said(loaded: Loaded) -> str:
    """Return what a lab's user is told."""
    return render_diagnostics(loaded.diagnostics, colour=False)


def snapshots(name: str) -> Mapping[str, str]:
    """Return everything about an example that is kept: path → text."""
    rendered = tree(example(name))
    files = {f"{f.host}/{f.path}": f.content.decode() for f in rendered.files() if is_text(f) and not is_program(f)}
    files |= {f"{o.host}/{o.path}": o.content.decode() for o in rendered.objects}
    with bare(EXAMPLES / name):
        told = said(validate(Path("lab.yaml")))
    return {**files, "manifest.txt": manifest(rendered), "diagnostics.txt": told}


def is_text(file: File) -> bool:
    """Tell texts, which are kept whole, from model files, of which the manifest keeps the digest."""
    try:
        file.content.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_program(file: File) -> bool:
    """Tell the gateway's own modules, which are kept once: as the package that they are copies of."""
    _, found, name = file.path.partition("/labctl/swap/")
    if file.path.endswith("/labctl/__init__.py"):
        return not file.content
    return bool(found) and file.content == resources.files("labctl.swap").joinpath(name).read_bytes()


def manifest(rendered: Tree) -> str:
    """Return what the files' bytes do not show: owners, modes, units, what waits for what."""
    return "".join(f"{line}\n" for host in rendered.hosts for line in _host(rendered.of_host(host)))


def _host(part: Tree) -> Iterator[str]:
    (root,) = part.roots.values()
    managers = ", ".join(root.managers)
    if root.cluster is not None:
        yield f"cluster {root.host}: namespace {root.cluster.namespace}, context {root.cluster.context or 'none'}"
    else:
        yield f"host {root.host} at {root.address}: {root.root}, state {root.state}, managers {managers or 'none'}"
    for item in sorted(part.objects, key=lambda o: (o.wave, o.path)):
        keys = f": {', '.join(item.entries)}" if item.entries else ""
        yield f"  wave {item.wave:2} {item.path}{keys}"
    yield from (f"  {_artefact(a)}" for a in part.artefacts)
    yield from (f"  image {i.reference} built from {i.context}" for i in part.images)
    for unit in part.units:
        yield from _unit(unit)


def _artefact(artefact: Artefact) -> str:
    match artefact:
        case File():
            size = "" if is_text(artefact) else f", {len(artefact.content)} bytes, sha256 {artefact.digest}"
            return f"file {artefact.path} {artefact.mode:04o}{size}"
        case SecretFile():
            return f"secret file {artefact.path} {artefact.mode:04o}, {artefact.format}: {', '.join(artefact.entries)}"
        case ModelFile():
            facts = f", {artefact.size} bytes" if artefact.size else ""
            facts += f", sha256 {artefact.sha256}" if artefact.sha256 else ""
            return f"model {artefact.path} from {artefact.url or 'the host itself'}{facts}"


def _unit(unit: Unit) -> Iterator[str]:
    yield f"  unit {unit.name}: {unit.manager} {unit.id} in {unit.project}, start {unit.start}"
    if unit.after:
        yield f"    after {', '.join(unit.after)}"
    if unit.check or unit.health:
        patience = f", at most {unit.health.start_period} s" if unit.health else ""
        yield f"    healthy by {unit.check or 'its own check'}{patience}"
    if unit.files:
        yield f"    restarted with {', '.join(unit.files)}"
