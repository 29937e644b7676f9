"""A host and workloads that use every feature, for all targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labctl import targets
from labctl.artefact import File, ModelFile, SecretFile, Tree, Unit
from labctl.emit import env
from labctl.placed import PlacedGpu, PlacedHost
from labctl.quantity import GIB
from labctl.workload import (
    Accelerator,
    ConfigFile,
    Container,
    GpuAccess,
    GpuClaim,
    Health,
    ImageBuild,
    Mount,
    Native,
    Port,
    Probe,
    SecretRef,
    SecretText,
    Start,
    Workload,
)

UUIDS = ("GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000")
MODEL = "org/model-Q4_K_M.gguf"
AWKWARD = '100% of $HOME, "quoted" it\'s \\n #1 ;'


def host(target: str = "compose", *, vendor: str = "nvidia", uuids: bool = True, **changes: Any) -> PlacedHost:
    """Return a host with two cards."""
    options = changes.pop("options", {})
    gpus = tuple(
        PlacedGpu(index=i, uuid=uuid if uuids else None, model="card", vendor=vendor, memory=8 * GIB)
        for i, uuid in enumerate(UUIDS)
    )
    places = targets.load(target).places("lab", options, None)
    placed = PlacedHost(
        name="box", lab="lab", address="10.0.0.5", bind="10.0.0.5", target=target, places=places, gpus=gpus,
        group_ids=(44, 109), options=options,
    )  # fmt: skip
    return dataclasses.replace(placed, **changes)


def claim(
    where: PlacedHost,
    accelerator: Accelerator = Accelerator.CUDA,
    access: GpuAccess = GpuAccess.RESERVATION,
    order: tuple[int, ...] = (0,),
) -> GpuClaim:
    """Return a claim on the cards with these positions."""
    placed = dataclasses.replace(where, gpu_access=access)
    return placed.claim(tuple(where.gpus[i] for i in order), accelerator, tuple(5 * GIB for _ in order))


def server(where: PlacedHost, name: str = "chat", port: int = 8081, **changes: Any) -> Workload:
    """Return a model server on the first card, as container and as native program."""
    container = Container(
        image="example.org/llama.cpp:server-cuda-b1",
        args=("--model", f"/models/{MODEL}", "--port", "8080", "--note", AWKWARD),
        mounts=(Mount(source="/var/lib/labctl/models", target="/models", read_only=True),),
    )
    native = Native(program="/usr/bin/true", args=("--model", MODEL, "--port", str(port), "--note", AWKWARD))
    workload = Workload(
        name=name,
        host=where.name,
        forms=(container, native),
        ports=(Port(name="http", listen=8080, published=port),),
        gpu=claim(where),
        health=Health(path="/health", start_period=120),
        models=(MODEL,),
        origin=("deployments", name),
    )
    return dataclasses.replace(workload, **changes)


def gateway(where: PlacedHost, **changes: Any) -> Workload:
    """Return a workload without cards that has files, secrets, plain variables and neighbours."""
    container = Container(
        image="example.org/gateway:1.2.3",
        entrypoint=("/bin/gateway",),
        args=("--config", "/app/config.yaml"),
        mounts=(Mount(source="gateway-data", target="/data", volume=True),),
        probe=Probe.PYTHON,
    )
    native = Native(program="/usr/bin/env", args=("--config", "{config:config.yaml}"))
    secret = SecretText(("postgresql://lab:", SecretRef("DB_PASSWORD"), "@db/lab"))
    workload = Workload(
        name="gateway",
        host=where.name,
        forms=(container, native),
        env={"PLAIN": AWKWARD, "DATABASE_URL": secret},
        files=(ConfigFile(name="config.yaml", content="a: $b\n", target="/app/config.yaml"),),
        ports=(Port(name="http", listen=4000, published=4000, bind="0.0.0.0"),),  # noqa: S104
        health=Health(path="/health/liveliness"),
        after=("chat",),
        origin=("gateway",),
    )
    return dataclasses.replace(workload, **changes)


def limited(where: PlacedHost) -> Workload:
    """Return an on-demand workload with every limit, a built image and no way to ask itself."""
    container = Container(
        image="labctl/own:1",
        build=ImageBuild(name="own", files={"Dockerfile": "FROM scratch\n", "run.sh": "#!/bin/sh\n"}),
        probe=Probe.NONE,
        shm_size=2 * GIB,
        locked_memory=True,
        user="1000:1000",
        init=False,
    )
    return Workload(
        name="limited",
        host=where.name,
        forms=(container, Native(program="/usr/bin/true", locked_memory=True)),
        ports=(Port(name="http", listen=9000, published=None), Port(name="metrics", listen=9001, published=9001)),
        health=Health(path="/metrics", port="metrics"),
        memory_limit=3 * GIB,
        swap_limit=4 * GIB,
        cpus=1.5,
        start=Start.ON_DEMAND,
        after=("gateway",),
        origin=("deployments", "limited"),
    )


def task(where: PlacedHost, **changes: Any) -> Workload:
    """Return a task that runs to its end once the server is healthy."""
    forms = (Container(image="example.org/task:1", args=("apply",)), Native(program="/usr/bin/true", args=("apply",)))
    workload = Workload(
        name="task",
        host=where.name,
        forms=forms,
        after=("chat",),
        start=Start.ONCE,
        time_limit=90,
        origin=("services", "task"),
    )
    return dataclasses.replace(workload, **changes)


def model(where: PlacedHost) -> ModelFile:
    """Return the model file that ``server`` reads."""
    path = f"{where.places.in_tree(where.places.models)}/{MODEL}"
    return ModelFile(host=where.name, path=path, url="https://example.org/model.gguf")


def render(where: PlacedHost, *workloads: Workload) -> Tree:
    """Render with the host's target."""
    return Tree.of(targets.load(where.target).render(where, workloads, [model(where)]))


def text(tree: Tree, suffix: str) -> str:
    """Return the content of the one file whose path ends so."""
    (found,) = [f for f in tree.files() if f.path.endswith(suffix)]
    return found.content.decode()


def unit(tree: Tree, name: str) -> Unit:
    """Return the unit of that workload."""
    (found,) = [u for u in tree.units if u.name == name]
    return found


def write(tree: Tree, folder: Path) -> None:
    """Lay a tree into a folder, with ``secret`` for every secret, as an executor would."""
    for artefact in tree.artefacts:
        path = folder / artefact.path
        path.parent.mkdir(parents=True, exist_ok=True)
        match artefact:
            case File():
                path.write_bytes(artefact.content)
            case SecretFile():
                path.write_text(env.dump({name: reveal(value) for name, value in artefact.entries.items()}))
            case ModelFile():
                path.touch()


def reveal(value: SecretText) -> str:
    """Join a text, every secret being ``secret``."""
    return "".join(part if isinstance(part, str) else "secret" for part in value.parts)


def digests(tree: Tree) -> dict[str, str]:
    """Return the fingerprints by workload."""
    return {u.name: u.fingerprint for u in tree.units}


def paths(tree: Tree) -> Iterable[str]:
    """Return every path of the tree."""
    return [artefact.path for artefact in tree.artefacts]
