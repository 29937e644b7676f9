"""Target ``compose``: one ``compose.yaml`` per host for ``docker compose``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from labctl.artefact import File, HostRoot, Image, Manager, ModelFile, SecretFile, Unit
from labctl.emit import Value, yaml
from labctl.placed import PlacedHost, Places
from labctl.targets import compose_service, shared
from labctl.workload import Capability, Container, Control, Workload

FILE: Final = "compose.yaml"
_Rendered = File | SecretFile | ModelFile | Image | Unit | HostRoot


class Compose:
    """Containers in one private network per host; state and secrets beside the file, data in named volumes."""

    name = "compose"
    by_name = True
    accepts = frozenset(Capability) - {Capability.NATIVE, Capability.OWN_PYTHON, Capability.REPLICAS}

    def network(self, host: PlacedHost) -> str | None:
        """Return the host's own: compose knows no network over several."""
        return host.name

    def control(self, host: PlacedHost, name: str) -> Control | None:
        """Through the engine's socket, which the workload gets mounted."""
        return Control("docker", compose_service.container_name(host, name))

    def places(self, lab: str, options: Mapping[str, object], models: str | None) -> Places:
        """Return the folders; option ``dir`` moves the compose project away from ``/opt/labctl``."""
        folder = str(options.get("dir") or "/opt/labctl").strip("/")
        return Places(
            root="/",
            config=f"{folder}/{lab}",
            state=f"var/lib/labctl/{lab}",
            models=models or "/var/lib/labctl/models",
        )

    def render(
        self, host: PlacedHost, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[_Rendered]:
        """Return the host's compose file and everything that its services read.

        Raises:
            LabctlError: LAB080 for what compose cannot run, LAB084 for what it cannot be told.
        """
        chosen = shared.formed(workloads, self, Container)
        running = {workload.name: (workload, form) for workload, form in chosen}
        services: dict[str, Value] = {}
        yield shared.root(host, Manager.COMPOSE)
        yield from models
        yield from _images(host, chosen)
        for workload, form in chosen:
            with shared.spelling(workload):
                environment = compose_service.environment(host, workload, form)
                service, digest = compose_service.service(host, workload, form, running)
                services[workload.name] = service
                belongings = shared.files(host, workload, environment.secret)
            yield from belongings
            paths = [*(f.path for f in belongings), *shared.model_paths(host, workload, models)]
            unit = shared.unit(
                host,
                workload,
                Manager.COMPOSE,
                name=workload.name,
                project=f"{host.places.config}/{FILE}",
                fingerprint=digest,
                files=paths,
                port=_published(workload),
            )
            yield replace(unit, image=_pulled(form, service))
        if services:
            content = yaml.dump(_project(host, services, chosen)).encode()
            yield File(host=host.name, path=f"{host.places.config}/{FILE}", content=content)


def _project(host: PlacedHost, services: Mapping[str, Value], chosen: Iterable[tuple[Workload, Container]]) -> Value:
    """Return the whole file. Networks and volumes have names of their own: a moved folder must not lose data."""
    volumes = sorted({mount.source for _, form in chosen for mount in form.mounts if mount.volume})
    project: dict[str, Value] = {
        "name": host.lab,
        "services": services,
        "networks": {"default": {"name": f"labctl-{host.lab}"}},
    }
    if volumes:
        project["volumes"] = {volume: {"name": f"{host.lab}_{volume}"} for volume in volumes}
    return project


def _images(host: PlacedHost, chosen: Iterable[tuple[Workload, Container]]) -> Iterator[File | Image]:
    """Yield each image to be built once, however many services use it."""
    builds = {form.image: (form.build, workload) for workload, form in reversed(list(chosen)) if form.build}
    for reference, (build, workload) in sorted(builds.items()):
        folder = f"{host.places.config}/images/{build.name}"
        for name, text in sorted(build.files.items()):
            yield File(host=host.name, path=f"{folder}/{name}", content=text.encode(), origin=workload.origin)
        yield Image(host=host.name, reference=reference, context=folder, origin=workload.origin)


def _pulled(form: Container, service: Value) -> str | None:
    """Return the image that a service needs from elsewhere; `extra` may have changed where it comes from."""
    spelt = service if isinstance(service, dict) else {}
    image = spelt.get("image")
    comes = "build" not in spelt and spelt.get("pull_policy") in {"missing", "if_not_present"}
    return image if comes and isinstance(image, str) and not form.local_image else None


def _published(workload: Workload) -> int | None:
    """Return the port on the host that a container's health is asked on."""
    health = workload.health
    return workload.port(health.port).published if health and health.path is not None else None


target = Compose()
