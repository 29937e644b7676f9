"""The rendered folder as a person uses it: ``kubectl apply -k``, without labctl and without secrets in any file.

Every folder has a ``kustomization.yaml``, and so has the top. Secrets are in none of them: ``_secrets`` makes them from
``NAME.env`` files, of which labctl writes the names (``NAME.env.example``) and never the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from labctl.artefact import File, Object
from labctl.emit import yaml
from labctl.targets.k3s.settings import Settings
from labctl.workload import SecretText

SECRETS: Final = "_secrets"
_HOW: Final = (
    "without labctl: write each NAME.env of _secrets from its NAME.env.example; then `kubectl apply -k _lab`, "
    "`kubectl apply -k _secrets`, `kubectl apply -k .`"
)


def files(site: Settings, objects: Iterable[Object]) -> Iterator[File]:
    """Yield what makes the folder usable by itself."""
    folders: dict[str, list[str]] = {}
    secrets: list[Object] = []
    for item in objects:
        folder, _, name = item.path.partition("/")
        names = folders.setdefault(folder, [])
        secrets.append(item) if item.entries else names.append(name)
    for folder, names in sorted(folders.items()):
        yield _kustomization(site, folder, {"resources": sorted(names)})
    yield _kustomization(site, "", {"resources": sorted(folders)}, header=_HOW if secrets else None)
    if secrets:
        yield from _secrets(site, secrets)


def _secrets(site: Settings, secrets: Iterable[Object]) -> Iterator[File]:
    generators = []
    for item in secrets:
        metadata = item.value["metadata"]
        file = f"{metadata['name']}.env"
        options = {"disableNameSuffixHash": True, "labels": metadata["labels"]}
        generators.append(
            {"name": metadata["name"], "namespace": metadata["namespace"], "envs": [file], "options": options}
        )
        lines = [f"{key}={_shape(text)}\n" for key, text in item.entries.items()]
        yield File(host=site.name, path=f"{SECRETS}/{file}.example", content="".join(lines).encode())
    yield _kustomization(site, SECRETS, {"secretGenerator": generators}, header=_HOW)


def _shape(text: SecretText) -> str:
    """Return a text with the names of its secrets in it."""
    return "".join(part if isinstance(part, str) else f"<{part.name}>" for part in text.parts)


def _kustomization(site: Settings, folder: str, body: dict[str, Any], header: str | None = None) -> File:
    value = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **body}
    text = yaml.dump(value, **({"header": header} if header else {}))
    path = f"{folder}/kustomization.yaml" if folder else "kustomization.yaml"
    return File(host=site.name, path=path, content=text.encode())
