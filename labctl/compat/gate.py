"""The gate: which build of an engine runs a deployment on its cards, and, when none does, why and what would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from labctl.compat import builds, fit, options
from labctl.compat.capability import compiled_at_start
from labctl.compat.values import Ask, Build, GpuFacts, Problem, Verdict


def gate(ask: Ask) -> Verdict:
    """Return the build for a deployment with the options that its cards demand, or the reasons against it.

    Nothing is assumed of what the lab does not say: an unknown driver or CPU passes, with a note where it matters. An
    image that the table does not know is judged only by what the lab says of its build.
    """
    pinned = builds.of_image(ask.image) if ask.image else None
    if (ask.image and not pinned) or ask.build or not builds.of(ask.engine):
        return _judged_by_itself(ask, pinned)
    candidates = (pinned,) if pinned else tuple(_candidates(ask))
    if not candidates:
        return Verdict(build=None, accelerator=None, problems=(_no_such_flavour(ask),))
    fitting = [b for b in candidates if not fit.misfits(b, ask)]
    if fitting:
        return _verdict(_best(fitting, ask), ask, ())
    return _verdict(_closest(candidates, ask), ask, (_refusal(candidates, ask),))


def alternatives(ask: Ask) -> Iterator[Build]:
    """Yield the best fitting build of every other engine for the same host and cards, in the table's order."""
    for engine in builds.engines():
        if engine != ask.engine:
            other = Ask(
                engine=engine,
                gpus=ask.gpus,
                arch=ask.arch,
                cpu_features=ask.cpu_features,
                form=ask.form,
                driver=ask.driver,
            )
            yield from _fitting(other)[:1]


def _candidates(ask: Ask) -> Iterator[Build]:
    """Yield the builds that the lab's own choices leave: those that use its cards, or those that need none."""
    for row in builds.of(ask.engine):
        chosen = ask.flavour == row.flavour if ask.flavour else _uses(row, ask)
        build = builds.at(row, ask.version) if ask.version else row
        if build and chosen and ask.form in {None, build.form}:
            yield build


def _uses(build: Build, ask: Ask) -> bool:
    if build.package or build.gateway:
        return build.gateway
    if ask.gpus:
        return build.accelerator != "cpu"
    return build.accelerator == "cpu" or build.cpu_fallback or _needs_cards(ask.engine)


def _needs_cards(engine: str) -> bool:
    return not any(b.accelerator == "cpu" or b.cpu_fallback for b in builds.of(engine))


def _fitting(ask: Ask) -> list[Build]:
    return [b for b in _candidates(ask) if not fit.misfits(b, ask)]


def _best(fitting: list[Build], ask: Ask) -> Build:
    """Return the first that fits, or one of its kind that has machine code where it has only PTX."""
    first = fitting[0]
    kin = (b for b in fitting if (b.accelerator, b.form) == (first.accelerator, first.form))
    return next((b for b in kin if not _compiling(b, ask)), first)


def _compiling(build: Build, ask: Ask) -> list[GpuFacts]:
    """Return the cards for which the driver has to compile the kernels at the first start."""
    return [g for g in ask.gpus if g.capability and compiled_at_start(g.capability, build)]


def _closest(candidates: tuple[Build, ...], ask: Ask) -> Build:
    return min(candidates, key=lambda b: len(fit.misfits(b, ask)))


def _refusal(candidates: tuple[Build, ...], ask: Ask) -> Problem:
    """Return one problem for all candidates: the first reason of the closest, with what would do instead."""
    free = replace(ask, flavour=None, version=None, image=None)
    siblings = _fitting(free)
    if not siblings and all(fit.card(b, ask) for b in candidates):
        return _impossible(candidates, ask)
    first = fit.misfits(_closest(candidates, ask), ask)[0]
    key = _pinned_by(ask) if first.key == "flavour" else first.key
    hints = list(filter(None, (first.hint, _switch(siblings, ask))))
    return replace(first, key=key, hint=", or ".join(hints) or _others(ask))


def _pinned_by(ask: Ask) -> str:
    return "image" if ask.image else "version" if ask.version and not ask.flavour else "flavour"


def _impossible(candidates: tuple[Build, ...], ask: Ask) -> Problem:
    if not ask.gpus:
        what = f"`{ask.engine}` needs a card, and it is given none"
        return Problem(code="LAB070", key="engine", summary=what, hint=_others(ask))
    bad = next((g for g in ask.gpus if all(fit.card(b, replace(ask, gpus=(g,))) for b in candidates)), ask.gpus[0])
    why = [f"{b.artefact}: {fit.contents(b, bad)}" for b in candidates if fit.concerns(b, bad)]
    what = f"`{ask.engine}` cannot run on `{bad.name}` ({bad.code})"
    return Problem(code="LAB070", key="engine", summary=what, detail="\n".join(why), hint=_others(ask))


def _switch(siblings: list[Build], ask: Ask) -> str:
    if not siblings:
        return ""
    best = siblings[0]
    option = f"`image: {best.image}`" if ask.image and best.image else f"`flavour: {best.flavour}`"
    return f"use {option} ({best.artefact})" if not ask.image else f"use {option}"


def _others(ask: Ask) -> str:
    fits = [f"`engine: {b.engine}` ({_words(b)})" for b in alternatives(ask)]
    return f"use {' or '.join(fits)}" if fits else "no engine that labctl knows runs on this card"


def _words(build: Build) -> str:
    return f"a server of your own on {build.artefact}" if build.base else build.artefact


def _judged_by_itself(ask: Ask, pinned: Build | None) -> Verdict:
    """Judge a private image or a build that the lab declares by what it says, on the kind of build that it is like."""
    own = tuple(fit.own_build(ask.build, ask)) if ask.build else ()
    private = bool(ask.image) and pinned is None
    notes = tuple(_unknown_notes(ask)) if private or not _own_builds(ask.engine) else ()
    like = pinned or _alike(ask)
    if like is None:
        lost = () if notes else (_no_such_flavour(ask),)
        return Verdict(build=None, accelerator=None, problems=(*lost, *own), notes=notes)
    verdict = _verdict(like, ask, own)
    notes = (*notes, *options.settings_notes(ask), *options.format_notes(ask))
    return replace(verdict, build=None if private else like, env={}, notes=notes)


def _own_builds(engine: str) -> list[Build]:
    return [b for b in builds.of(engine) if not b.base]


def _alike(ask: Ask) -> Build | None:
    """Return the row that a private build resembles: one that drives the cards, else one of the same toolkit."""
    rows = [b for b in _candidates(replace(ask, version=None)) if b in _own_builds(ask.engine)]
    driving = (b for b in rows if fit.card(b, ask) is None)
    same_kind = (b for b in rows if ask.build and ask.build.cuda and b.accelerator == "cuda")
    return next(driving, None) or next(same_kind, None) or next(iter(rows), None)


def _unknown_notes(ask: Ask) -> Iterator[str]:
    what = f"the image `{ask.image}`" if ask.image else f"the engine `{ask.engine}`"
    yield f"{what} is not in labctl's table: whether it suits the cards, the CPU and the driver is not checked"


def _no_such_flavour(ask: Ask) -> Problem:
    rows = builds.of(ask.engine)
    forms = {b.form for b in rows}
    if ask.form and ask.form not in forms:
        return Problem(
            code="LAB070",
            key="engine",
            summary=f"`{ask.engine}` has no {ask.form} build, and the host's target runs no other",
            hint=_others(ask),
        )
    offered = ", ".join(f"`{b.flavour}` ({b.version})" for b in rows if ask.form in {None, b.form})
    wanted = f"flavour `{ask.flavour}`" if ask.flavour else f"release `{ask.version}`"
    key = "flavour" if ask.flavour else "version"
    return Problem(
        code="LAB071", key=key, summary=f"`{ask.engine}` has no {wanted} for this host", hint=f"choose of {offered}"
    )


def _verdict(build: Build, ask: Ask, problems: tuple[Problem, ...]) -> Verdict:
    impossible = any(p.code == "LAB070" for p in problems)
    found = problems if impossible else (*problems, *options.problems(build, ask))
    return Verdict(
        build=build,
        accelerator=build.accelerator,
        settings=options.settings(ask),
        env=build.env,
        problems=found,
        notes=tuple(_notes(build, ask)),
    )


def _notes(build: Build, ask: Ask) -> Iterator[str]:
    yield from options.settings_notes(ask)
    yield from options.format_notes(ask)
    slow = _compiling(build, ask)
    if slow:
        yield f"`{slow[0].name}`: the driver compiles the kernels at the first start, which can take minutes"
    needed = fit.oldest_driver(build, ask.gpus)
    if needed and ask.driver is None:
        yield f"needs an NVIDIA driver of {needed} or newer; the host's is not known"
    if build.cpu_features and ask.cpu_features is None:
        yield f"needs a CPU with {', '.join(f.upper() for f in build.cpu_features)}; the host's is not known"
    if ask.gpus and build.accelerator == "cpu" and not build.gateway:
        yield f"`{build.flavour}` runs on the CPU: its cards stay idle"
    if build.note:
        yield build.note
    doubtful = [g.name for g in dict.fromkeys(ask.gpus) if not g.certain]
    if doubtful:
        yield f"the catalogue's row for `{doubtful[0]}` is not verified"
