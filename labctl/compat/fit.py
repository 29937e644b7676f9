"""Whether a build runs on a host at all: architecture, cards, CPU, driver. One function per reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from labctl.compat import cpus
from labctl.compat.builds import toolkits
from labctl.compat.capability import drives, parse, version
from labctl.compat.rules import Toolkit
from labctl.compat.values import Ask, Build, GpuFacts, OwnBuild, Problem
from labctl.workload import Probe

_VENDORS: Final = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}


def misfits(build: Build, ask: Ask) -> tuple[Problem, ...]:
    """Return every reason why a build does not run on the host, the plainest first."""
    checks: tuple[Callable[[Build, Ask], Problem | None], ...] = (host, card, cpu, driver)
    return tuple(p for p in (check(build, ask) for check in checks) if p)


def host(build: Build, ask: Ask) -> Problem | None:
    """Check that there is an image for the host's architecture (LAB078)."""
    if ask.arch in build.arch:
        return None
    made = " and ".join(f"`{a}`" for a in build.arch)
    return Problem(code="LAB078", key="arch", summary=f"`{build.artefact}` is made for {made}, not for `{ask.arch}`")


def card(build: Build, ask: Ask) -> Problem | None:
    """Check that a build has code for every card (LAB071), or needs none."""
    if build.accelerator == "cpu":
        return None
    if not ask.gpus:
        return None if build.cpu_fallback else _no_card(build)
    strange = next((g for g in ask.gpus if not drives(build, g)), None)
    if strange is None:
        return None
    return Problem(
        code="LAB071",
        key="flavour",
        summary=f"`{build.artefact}` has no code for `{strange.name}` ({strange.code})",
        detail=contents(build, strange),
    )


def cpu(build: Build, ask: Ask) -> Problem | None:
    """Check that the CPU has the instruction sets that a build was made with (LAB072). An unknown CPU passes."""
    if build.for_host or ask.cpu_features is None or ask.arch != "x86_64":
        return None
    lacking = cpus.missing(build.cpu_features, ask.cpu_features)
    return _lacking(build.artefact, lacking) if lacking else None


def driver(build: Build, ask: Ask) -> Problem | None:
    """Check that the NVIDIA driver is new enough for a build (LAB077). An unknown driver passes."""
    needed = oldest_driver(build, ask.gpus)
    if not needed or not ask.driver or version(ask.driver) >= version(needed):
        return None
    return Problem(
        code="LAB077",
        key="driver",
        summary=f"`{build.artefact}` needs an NVIDIA driver of {needed} or newer; the host has {ask.driver}",
        detail=f"it is built with CUDA {build.cuda}" if build.cuda else "",
        hint=f"update the driver to {needed} or newer",
    )


def oldest_driver(build: Build, gpus: tuple[GpuFacts, ...]) -> str | None:
    """Return the oldest NVIDIA driver that a build runs with on these cards; None when it does not matter."""
    nvidia = [g for g in gpus if g.capability and not g.tegra]
    if build.accelerator != "cuda" or not nvidia:
        return None
    if build.legacy_driver and build.legacy_below:
        below = parse(build.legacy_below)
        if any(g.capability and parse(g.capability) < below for g in nvidia):
            return build.legacy_driver
    return build.min_driver


def own_build(own: OwnBuild, ask: Ask) -> Iterator[Problem]:
    """Yield what is wrong with a build that the lab declares itself: LAB071 for its cards, LAB072 for its CPU."""
    toolkit = next((t for t in toolkits() if own.cuda and version(own.cuda)[:2] >= version(t.cuda)), None)
    nvidia = [g for g in ask.gpus if g.capability]
    targets = own.capabilities or tuple(dict.fromkeys(g.capability for g in nvidia if g.capability))
    if toolkit and own.cuda:
        yield from _uncompilable(own.cuda, toolkit, targets)
    if own.capabilities:
        yield from _uncovered(own.capabilities, nvidia)
    lacking = cpus.missing(own.cpu_features or (), ask.cpu_features or ()) if ask.cpu_features is not None else ()
    if lacking and ask.arch == "x86_64":
        yield _lacking("the build", lacking, key="build")


def contents(build: Build, gpu: GpuFacts) -> str:
    """Return in words what a build has code for, as far as it concerns a card."""
    if gpu.tegra and "tegra" not in build.platforms:
        return "it is made for servers (SBSA), not for a Jetson (L4T)"
    if build.accelerator == "vulkan" or build.for_host:
        oldest = f", NVIDIA's from compute capability {build.min_capability}" if build.min_capability else ""
        return f"it drives cards of {', '.join(_VENDORS[v] for v in build.vendors or ('nvidia',))}{oldest}"
    if build.accelerator == "rocm":
        return f"it is compiled for {', '.join(build.gfx)}"
    ptx = f", PTX for {', '.join(build.ptx)}" if build.ptx else ", no PTX"
    return f"built with CUDA {build.cuda}: machine code for {', '.join(build.sass)}{ptx}"


def concerns(build: Build, gpu: GpuFacts) -> bool:
    """Tell whether a build is of a kind that could drive a card of this vendor."""
    return {"cuda": gpu.vendor == "nvidia", "rocm": gpu.vendor == "amd"}.get(
        build.accelerator, gpu.vendor in build.vendors
    )


def _no_card(build: Build) -> Problem:
    return Problem(code="LAB070", key="engine", summary=f"`{build.artefact}` needs a card, and it is given none")


def _lacking(what: str, lacking: tuple[str, ...], key: str = "image") -> Problem:
    names = ", ".join(n.upper() for n in lacking)
    subject = f"`{what}`" if key == "image" else what
    return Problem(
        code="LAB072",
        key=key,
        summary=f"{subject} uses {names}, which the host's CPU does not have",
        detail="it would end with an illegal instruction when it starts",
        hint="set `cpu: baseline` in `build`" if key == "build" else "",
    )


def _uncompilable(cuda: str, toolkit: Toolkit, targets: tuple[str, ...]) -> Iterator[Problem]:
    for target in targets:
        if not parse(toolkit.lowest) <= parse(target) <= parse(toolkit.highest):
            fits = [t for t in toolkits() if parse(t.lowest) <= parse(target) <= parse(t.highest)]
            yield Problem(
                code="LAB071",
                key="build",
                summary=f"CUDA {cuda} cannot compile for compute capability {target}",
                detail=f"it compiles for {toolkit.lowest} to {toolkit.highest}",
                hint=f"build with CUDA {fits[0].cuda}" if fits else f"no CUDA toolkit of ours compiles for {target}",
            )


def _uncovered(capabilities: tuple[str, ...], nvidia: list[GpuFacts]) -> Iterator[Problem]:
    for gpu in nvidia:
        built = Build(
            id="own",
            engine="",
            flavour="",
            form="container",
            version="",
            accelerator="cuda",
            sass=capabilities,
            ptx=capabilities,
            platforms=("server", "tegra"),
            arch=(),
            probe=Probe.NONE,
            source="",
        )
        if not drives(built, gpu):
            yield Problem(
                code="LAB071",
                key="build",
                summary=f"the build has no code for `{gpu.name}` ({gpu.code})",
                detail=f"it is compiled for {', '.join(capabilities)}",
                hint=f"add `{gpu.capability}` to `capabilities`",
            )
