"""Container images that are built on the host, once per content of their build context."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from labctl.artefact import Image
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, Site

CONTEXT: Final = "labctl.context"
"""The label that tells which build context an image was built from."""
BUILD_TIMEOUT: Final = 4 * 3600
"""Seconds: compiling an engine for an old GPU takes hours."""


def look(site: Site, references: Iterable[str]) -> Mapping[str, str]:
    """Return the images that are there, with the digest of their context ("" when labctl did not build them)."""
    wanted = sorted(set(references))
    found: dict[str, str] = {}
    if not wanted:
        return found
    ran = site.shell.run(["docker", "image", "inspect", *wanted])
    for image in json.loads(ran.out or "[]"):
        label = ((image.get("Config") or {}).get("Labels") or {}).get(CONTEXT, "")
        for reference in wanted:
            if reference in _names(image):
                found[reference] = label
    return found


def build(site: Site, image: Image, digest: str, log: Callable[[str], None]) -> None:
    """Build an image. HostError (LAB119) with the last lines when that fails."""
    argv = ["docker", "build", "--label", f"{CONTEXT}={digest}", "--tag", image.reference, site.at(image.context)]
    ran = site.shell.run(argv, timeout=BUILD_TIMEOUT)
    if not ran.ok:
        raise HostError(
            Diagnostic(
                code="LAB119",
                summary=f"the image `{image.reference}` could not be built",
                detail=ran.tail(),
                path=image.origin or None,
            )
        )
    log(f"built {image.reference}")


def remove(site: Site, reference: str) -> None:
    """Remove an image; one that is in use or gone stays so."""
    site.shell.run(["docker", "image", "rm", reference])


def _names(image: Mapping[str, list[str] | None]) -> set[str]:
    tags = image.get("RepoTags") or []
    return {name for tag in tags for name in (tag, tag.removesuffix(":latest"))}
