"""What a deployment would run on and take, on any cards: the compatibility gate and the memory models, asked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from labctl.diagnostics import Diagnostic, Severity
from labctl.engines import load as load_engine
from labctl.model.deployment import Deployment
from labctl.model.lab import Lab
from labctl.placed import PlacedGpu, PlacedHost, PlacedModel, Runtime, Server
from labctl.resolve.ledger import overhead
from labctl.resolve.models import Knowledge, place_model, smaller_quantisations
from labctl.resolve.runtime import choose_runtime
from labctl.targets import Target
from labctl.vram.footprint import Footprint


class Sizing:
    """Answers questions about one lab's deployments; equal questions are computed once."""

    def __init__(
        self,
        lab: Lab,
        targets: Mapping[str, Target | None],
        models: Mapping[str, PlacedModel],
        knowledge: Knowledge,
        say: Callable[[Diagnostic], None],
    ) -> None:
        self.lab = lab
        self.targets = targets
        self.models = models
        self.knowledge = knowledge
        self.say = say
        self._footprints: dict[tuple[object, ...], Footprint | None] = {}
        self._needs: dict[tuple[object, ...], int | str] = {}
        self._runtimes: dict[tuple[object, ...], tuple[Runtime, tuple[Diagnostic, ...]]] = {}

    def runtime(
        self, name: str, host: PlacedHost, gpus: tuple[PlacedGpu, ...]
    ) -> tuple[Runtime, tuple[Diagnostic, ...]]:
        """Return the build that a server of a deployment would run, and the gate's problems with it."""
        key = (name, host.name, tuple(g.model for g in gpus))
        if key not in self._runtimes:
            self._runtimes[key] = self._chosen(self.lab.deployments[name], host, gpus)
        return self._runtimes[key]

    def _chosen(
        self, spec: Deployment, host: PlacedHost, gpus: tuple[PlacedGpu, ...]
    ) -> tuple[Runtime, tuple[Diagnostic, ...]]:
        engine, block, target = load_engine(spec.engine), self.lab.hosts[host.name], self.targets[host.name]
        return choose_runtime(engine, spec, host, block, gpus, target, self.lab.images)

    def footprint(self, name: str, gpus: tuple[PlacedGpu, ...], runtime: Runtime) -> Footprint | None:
        """Return the footprint of one server of a deployment, None when nobody knows it.

        That a model cannot be computed is a warning, said once.
        """
        key = (name, tuple((g.model, g.memory, g.reserve) for g in gpus), runtime.version)
        if key not in self._footprints:
            spec = self.lab.deployments[name]
            models = [self.models[m] for m in spec.model_names]
            try:
                self._footprints[key] = load_engine(spec.engine).footprint(spec, models, gpus, runtime.version)
            except ValueError as error:
                self._footprints[key] = None
                self.say(_incomputable(spec, error))
        return self._footprints[key]

    def need(self, name: str, host: PlacedHost, gpus: tuple[PlacedGpu, ...]) -> int | str:
        """Return bytes on the fullest of these cards; a reason when it cannot run there or its size is unknown."""
        key = (name, host.name, tuple((g.model, g.memory, g.reserve) for g in gpus))
        if key not in self._needs:
            self._needs[key] = self._need(name, host, gpus)
        return self._needs[key]

    def _need(self, name: str, host: PlacedHost, gpus: tuple[PlacedGpu, ...]) -> int | str:
        runtime, problems = self.runtime(name, host, gpus)
        refused = next((p.summary for p in problems if p.is_error), None)
        if refused is not None:
            return refused
        footprint = self.footprint(name, gpus, runtime)
        if footprint is None:
            return "nothing is known of its memory: state it with `vram: {declared: 4 GiB}`"
        return max((d.total for d in footprint.devices), default=0) + overhead(runtime.accelerator, footprint)

    def trial(self, server: Server, spec: Deployment) -> Footprint | None:
        """Return the footprint of a server with changed settings, None when it is unknown or would be refused."""
        runtime, problems = self._chosen(spec, server.host, server.gpus)
        engine = load_engine(spec.engine)
        facts = (spec, server.models, server.gpus, runtime.version)
        if any(p.is_error for p in (*problems, *engine.check(spec, server.models), *engine.limits(*facts))):
            return None
        try:
            return engine.footprint(*facts)
        except ValueError:
            return None

    def smaller(self, server: Server) -> Iterator[tuple[str, Server]]:
        """Yield a server with its model in smaller quantisations, as far as the catalogue knows them."""
        if len(server.models) != 1:
            return
        model = self.lab.models[server.models[0].name]
        for quantisation, other in smaller_quantisations(model):
            known = self.knowledge.of(f"{quantisation} of {server.models[0].name}", other)
            if known.gguf is not None:
                yield quantisation, replace(server, models=(place_model(server.models[0].name, other, known),))


def _incomputable(spec: Deployment, error: ValueError) -> Diagnostic:
    names = ", ".join(f"`{m}`" for m in spec.model_names)
    return Diagnostic(
        code="LAB066",
        severity=Severity.WARNING,
        summary=f"the memory of {names} cannot be computed: {error}",
        path=("models", spec.model_names[0]) if spec.model_names else None,
        hint="state it: `vram: {declared: 4 GiB}`",
    )
