"""Volumes, and how model files get into them.

A volume belongs to a node, as it does with the other targets: ``VOLUME-HOST``. Claims hold data, so nothing here
depends on what else is in the lab.

Model files are fetched by a Job per model and host, in a wave of their own, before anything that reads them: no card is
held while gigabytes come in, what is switched on later finds its files, and progress and failure have a place to be
looked for. The same script is each server's init container: there it finds everything done in a moment, or mends a
volume that was lost.
"""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Final

from labctl.artefact import File, ModelFile, Object
from labctl.placed import PlacedHost
from labctl.targets.k3s import form as spell
from labctl.targets.k3s import waves
from labctl.targets.k3s.settings import Settings, fetch_image, node
from labctl.values import dataclass
from labctl.workload import Mount, SecretRef, SecretText

FOLDER: Final = "_models"
AT: Final = "/models"
SHIPPED: Final = "/shipped"
MODELS: Final = "labctl-models"
FETCH: Final = "labctl-fetch"
SCRIPT_AT: Final = "/labctl"
SCRIPT_NAME: Final = "fetch.sh"
SCRIPT: Final = resources.files("labctl.targets.k3s").joinpath("shipped", SCRIPT_NAME).read_text(encoding="utf-8")
SCRIPT_MAP: Final = f"{FETCH}-{spell.short_hash(SCRIPT)}"
HUB_SECRET: Final = "labctl-hub"  # noqa: S105 - a Secret's name
HUB: Final = "https://huggingface.co"
_USER: Final = 1000
_SLOW: Final = 2 << 20
"""Bytes per second of a slow connection: how long a download may take."""
_HOUR: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A model file that has to be on a host's volume.

    Attributes:
        path: below the models folder.
        url: where it comes from, None when it has to be there.
        content: the file itself, for a small one that labctl makes.
        model: its key in ``models``.
    """

    path: str
    model: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    content: bytes | None = None

    @property
    def arguments(self) -> tuple[str, str, str, str]:
        """What the script is told of it."""
        return (self.path, self.url or "", "" if self.size is None else str(self.size), self.sha256 or "")

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap that holds it."""
        return f"model-{self.model}-{(self.sha256 or '')[:8]}"


def fetched(host: PlacedHost, models: Iterable[ModelFile | File]) -> tuple[Fetched, ...]:
    """Return the files that have to be on a host's volume."""
    folder = f"{host.places.in_tree(host.places.models)}/"
    return tuple(_fetched(m, m.path.removeprefix(folder)) for m in models if m.host == host.name)


def _fetched(model: ModelFile | File, path: str) -> Fetched:
    name = str(model.origin[1]) if len(model.origin) > 1 else f"file-{spell.short_hash(path)}"
    if isinstance(model, File):
        url = f"file://{SHIPPED}/{name}/{spell.key(path)}"
        return Fetched(
            path=path, model=name, url=url, size=len(model.content), sha256=model.digest, content=model.content
        )
    return Fetched(path=path, model=name, url=address(model.url), size=model.size, sha256=model.sha256)


def address(url: str) -> str | None:
    """Return the HTTP address of a model file; None for one of the applying machine, which no pod can reach."""
    if url.startswith("hf://"):
        org, repo, file = url.removeprefix("hf://").split("/", 2)
        repo, _, revision = repo.partition("@")
        return f"{HUB}/{org}/{repo}/resolve/{revision or 'main'}/{urllib.parse.quote(file)}"
    return url if url.startswith(("http://", "https://")) else None


def claim_name(host: PlacedHost, volume: str) -> str:
    """Return the name of a volume's claim."""
    return f"{volume}-{host.name}"


def is_models(host: PlacedHost, mount: Mount) -> bool:
    """Whether a mount is the host's models folder."""
    return not mount.volume and mount.source == host.places.models


def volume_name(host: PlacedHost, mount: Mount) -> str:
    """Return what a pod calls a volume: a short text of letters, digits and hyphens."""
    if is_models(host, mount):
        return MODELS
    plain = mount.source.strip("/").replace("/", "-").replace("_", "-").replace(".", "-").lower()
    same = mount.volume and plain == mount.source and len(plain) < 60
    return plain if same else f"{plain[:40].strip('-') or 'root'}-{spell.short_hash(mount.source)}"


def volume(host: PlacedHost, mount: Mount) -> dict[str, Any]:
    """Return where a volume of a pod comes from."""
    if mount.volume:
        return {"persistentVolumeClaim": {"claimName": claim_name(host, mount.source)}}
    if is_models(host, mount) and not mount.source.startswith("/"):
        return {"persistentVolumeClaim": {"claimName": claim_name(host, "models")}}
    return {"hostPath": {"path": mount.source, **({"type": "DirectoryOrCreate"} if is_models(host, mount) else {})}}


def claims(host: PlacedHost, site: Settings, mounts: Iterable[Mount], *, models: bool) -> Iterator[Object]:
    """Yield the claims of a host's volumes."""
    sizes: dict[str, int | None] = {"models": site.models_size} if models else {}
    for mount in mounts:
        if mount.volume:
            sizes[mount.source] = max(mount.size or 0, sizes.get(mount.source) or 0)
    for name, size in sorted(sizes.items()):
        folder = FOLDER if name == "models" else "_volumes"
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": spell.memory(size or site.volume_size)}},
        }
        if site.storage_class:
            spec["storageClassName"] = site.storage_class
        metadata = spell.meta(site, claim_name(host, name), spell.lab_labels(site, name))
        value = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        yield spell.thing(site, folder, value, waves.STORAGE, host.origin)


def init_containers(files: Sequence[Fetched], host: PlacedHost, site: Settings) -> list[dict[str, Any]]:
    """Return the container that makes sure that model files are there."""
    return [_loader("models", files, host, site)] if files else []


def fetching_volumes(files: Sequence[Fetched], host: PlacedHost) -> dict[str, dict[str, Any]]:
    """Return the volumes of that container, by name."""
    if not files:
        return {}
    mount = Mount(source=host.places.models, target=AT)
    shipped = {f.model: f for f in files if f.content is not None}
    maps = {f"model-{name}": {"configMap": {"name": f.config_map}} for name, f in shipped.items()}
    return {MODELS: volume(host, mount), FETCH: {"configMap": {"name": SCRIPT_MAP}}, **maps}


def _loader(name: str, files: Sequence[Fetched], host: PlacedHost, site: Settings) -> dict[str, Any]:
    arguments = [spell.expanded(a) for f in files for a in f.arguments]
    shipped = {f.model for f in files if f.content is not None}
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": HUB_SECRET, "key": "HF_TOKEN"}}}
    on_disk = host.places.models.startswith("/")
    ids = {} if on_disk else {"runAsUser": _USER, "runAsGroup": _USER, "runAsNonRoot": True}
    container: dict[str, Any] = {
        "name": name,
        "image": mirrored(site, fetch_image()),
        "command": ["/bin/sh", "-eu", f"{SCRIPT_AT}/{SCRIPT_NAME}", AT],
        "args": arguments,
        "env": [token] if site.hub_token else [],
        "securityContext": {
            **({"runAsUser": 0} if on_disk else ids),
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": MODELS, "mountPath": AT},
            {"name": FETCH, "mountPath": SCRIPT_AT, "readOnly": True},
            *({"name": f"model-{m}", "mountPath": f"{SHIPPED}/{m}", "readOnly": True} for m in sorted(shipped)),
        ],
    }
    return {k: v for k, v in container.items() if v != []}


def mirrored(site: Settings, image: str) -> str:
    """Return an image at the lab's mirror, where it has one."""
    return f"{site.mirror.rstrip('/')}/{image}" if site.mirror else image


def models(host: PlacedHost, site: Settings, files: Sequence[Fetched]) -> Iterator[Object]:
    """Yield the jobs that fetch a host's models, and what they need."""
    by_model: dict[str, list[Fetched]] = {}
    for file in files:
        by_model.setdefault(file.model, []).append(file)
    for name, parts in sorted(by_model.items()):
        yield from (_shipped(site, f) for f in parts if f.content is not None)
        yield _job(host, site, name, parts)


def _shipped(site: Settings, file: Fetched) -> Object:
    data = {spell.key(file.path): base64.b64encode(file.content or b"").decode()}
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": spell.meta(site, file.config_map, spell.lab_labels(site, f"model-{file.model}")),
        "immutable": True,
        "binaryData": data,
    }
    return spell.thing(site, FOLDER, value, waves.CONFIG, ("models", file.model))


def _job(host: PlacedHost, site: Settings, name: str, parts: Sequence[Fetched]) -> Object:
    marks = {**spell.lab_labels(site, f"fetch-{name}"), f"{spell.APP}/component": "model"}
    pod: dict[str, Any] = {
        "serviceAccountName": FETCH,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "OnFailure",
        "nodeSelector": {"kubernetes.io/hostname": node(host)},
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": {
            **({} if host.places.models.startswith("/") else {"fsGroup": _USER}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_loader("fetch", parts, host, site)],
        "volumes": [{"name": n, **source} for n, source in fetching_volumes(parts, host).items()],
    }
    size = sum(p.size or 0 for p in parts)
    spec = {
        "activeDeadlineSeconds": max(_HOUR, size // _SLOW) if size else 6 * _HOUR,
        "backoffLimit": 6,
        "template": {"metadata": {"labels": marks}, "spec": pod},
    }
    job = f"fetch-{name}-{host.name}"[:52].rstrip("-")
    metadata = spell.meta(site, f"{job}-{spell.short_hash(spec)}", marks)
    value = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
    return spell.thing(site, FOLDER, value, waves.MODELS, ("models", name))


def account(site: Settings) -> Iterator[Object]:
    """Yield what all of these jobs share: an account without rights, the script, and the Hub's token."""
    marks = spell.lab_labels(site, "fetch")
    metadata = spell.meta(site, FETCH, marks)
    value = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }
    yield spell.thing(site, FOLDER, value, waves.CONFIG)
    script = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": spell.meta(site, SCRIPT_MAP, marks),
        "immutable": True,
        "data": {SCRIPT_NAME: SCRIPT},
    }
    yield spell.thing(site, FOLDER, script, waves.CONFIG)
    if site.hub_token:
        yield secret(site, FOLDER, HUB_SECRET, {"HF_TOKEN": SecretText((SecretRef(site.hub_token),))})


def secret(site: Settings, folder: str, name: str, entries: Mapping[str, SecretText]) -> Object:
    """Return a Secret: its keys are known, its values only when it is applied."""
    value = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": spell.meta(site, name, spell.lab_labels(site, name)),
        "type": "Opaque",
    }
    return spell.thing(site, folder, value, waves.CONFIG, entries=entries)
