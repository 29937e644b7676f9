"""What is compared: digests of things that a tree holds, computable without any secret's value."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from labctl.artefact import Artefact, File, Image, ModelFile, SecretFile, Tree
from labctl.plan.observed import SecretDigests

HIDDEN: Final = "?"
"""Stands for a secret file's digest when no values were at hand."""


def shape(secret: SecretFile) -> str:
    """Return a digest of a secret file's names, literal parts and format: everything but the values."""
    entries = {
        name: [part if isinstance(part, str) else {"secret": part.name} for part in text.parts]
        for name, text in secret.entries.items()
    }
    return _sha(json.dumps([secret.format, entries], sort_keys=True))


def wanted(artefact: Artefact, secrets: SecretDigests | None) -> str | None:
    """Return the digest that the artefact's path should have, None where it cannot be known."""
    match artefact:
        case File():
            return artefact.digest
        case ModelFile():
            return artefact.sha256
        case SecretFile():
            return None if secrets is None else secrets.get((artefact.host, artefact.path))


def as_input(artefact: Artefact, secrets: SecretDigests | None) -> str:
    """Return what a unit's record says about one of its files: a change of it means that the unit must restart."""
    match artefact:
        case File():
            return artefact.digest
        case ModelFile():
            return artefact.sha256 or artefact.url
        case SecretFile():
            return f"{shape(artefact)}:{wanted(artefact, secrets) or HIDDEN}"


def same_input(recorded: str | None, now: str) -> bool:
    """Whether two inputs are the same, as far as can be known: an unknown secret value equals any."""
    if recorded is None:
        return False
    if now.endswith(f":{HIDDEN}"):
        return recorded.partition(":")[0] == now.partition(":")[0]
    return recorded == now


def context(tree: Tree, image: Image) -> str:
    """Return a digest of the files that an image is built from."""
    prefix = f"{image.context.rstrip('/')}/"
    files = [f for f in tree.files() if f.host == image.host and f.path.startswith(prefix)]
    return _sha("\n".join(f"{f.path.removeprefix(prefix)} {f.mode:o} {f.digest}" for f in files))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
