"""Which build of its engine a server runs: the compatibility gate's answer, with problems put where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labctl import compat
from labctl.compat import gpus as catalogue
from labctl.diagnostics import Diagnostic, DocPath
from labctl.engines import Engine, Traits
from labctl.model.deployment import Build, Deployment
from labctl.model.host import Host
from labctl.model.lab import Images
from labctl.placed import PlacedGpu, PlacedHost, Runtime
from labctl.targets import Target
from labctl.workload import Accelerator, Capability, Probe

ACCELERATORS = {"nvidia": Accelerator.CUDA, "amd": Accelerator.VULKAN, "intel": Accelerator.VULKAN}


def form_of(target: Target | None) -> str | None:
    """Return the only form that a target runs, None when it runs both."""
    if target is None:
        return "container"
    container = Capability.CONTAINER in target.accepts
    return None if container and Capability.NATIVE in target.accepts else "container" if container else "native"


def choose_runtime(
    engine: Engine,
    spec: Deployment,
    placed: PlacedHost,
    host: Host,
    gpus: Sequence[PlacedGpu],
    target: Target | None,
    images: Images,
) -> tuple[Runtime, tuple[Diagnostic, ...]]:
    """Return the runtime of one server and the gate's problems, with paths relative to the deployment's block.

    Problems of the host itself (its driver, its architecture) have paths that start with ``hosts``. A host with a card
    that the catalogue does not have is not asked about: that problem is reported with the host.
    """
    traits = engine.traits(spec)
    if not traits.gated or any(catalogue.find(g.model) is None for g in gpus):
        return _ungated(spec, gpus), ()
    verdict = compat.gate(_ask(engine, spec, traits, placed, host, gpus, target))
    problems = tuple(_diagnostic(p, traits, placed) for p in verdict.problems)
    build = verdict.build
    if build is None:
        return _ungated(spec, gpus), problems
    runtime = Runtime(
        flavour=build.flavour,
        version=(spec.build.version if spec.build else None) or build.version,
        image=spec.image or images.replace.get(engine.name) or build.image,
        accelerator=Accelerator(verdict.accelerator) if verdict.accelerator in set(Accelerator) else None,
        probe=build.probe,
        settings=dict(verdict.settings),
        env=dict(verdict.env),
    )
    return (replace(runtime, image=None) if form_of(target) == "native" else runtime), problems


def _ask(
    engine: Engine,
    spec: Deployment,
    traits: Traits,
    placed: PlacedHost,
    host: Host,
    gpus: Sequence[PlacedGpu],
    target: Target | None,
) -> compat.Ask:
    known = [catalogue.find(g.model) for g in gpus]
    return compat.Ask(
        engine=engine.name,
        gpus=tuple(f for f in known if f is not None),
        arch=placed.arch,
        cpu_features=placed.cpu_features,
        form=form_of(target),
        flavour=spec.flavour,
        image=spec.image,
        build=_own_build(spec.build, placed) if spec.build is not None else None,
        driver=host.driver,
        kv_cache=traits.kv_cache,
        flash_attention=traits.flash_attention,
        dtype=traits.dtype,
        quantization=traits.quantization,
        attention_backend=traits.attention_backend,
    )


def _own_build(build: Build, placed: PlacedHost) -> compat.OwnBuild:
    """Return what a declared build is made of; a native one has the host's own instruction sets."""
    features = placed.cpu_features if build.cpu == "native" else frozenset(() if build.cpu == "baseline" else build.cpu)
    return compat.OwnBuild(
        version=build.version,
        cuda=build.cuda,
        capabilities=build.capabilities,
        cpu_features=features,
    )


def _diagnostic(problem: compat.Problem, traits: Traits, host: PlacedHost) -> Diagnostic:
    key = traits.keys.get(problem.key, problem.key)
    path: DocPath = (*host.origin, key) if key in {"arch", "driver"} else (key,) if key else ()
    return Diagnostic(code=problem.code, summary=problem.summary, detail=problem.detail, path=path, hint=problem.hint)


def _ungated(spec: Deployment, gpus: Sequence[PlacedGpu]) -> Runtime:
    accelerator = ACCELERATORS.get(gpus[0].vendor) if gpus else None
    return Runtime(flavour=spec.flavour or "", version="", image=spec.image, accelerator=accelerator, probe=Probe.CURL)
