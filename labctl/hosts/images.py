"""Container images of a host: pulled, or built once per content of their build context."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from labctl.artefact import Image
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Emit, HostError, Shell, Site
from labctl.hosts.events import Progress
from labctl.values import dataclass

CONTEXT: Final = "labctl.context"
"""The label that tells which build context an image was built from."""
ATTEMPTS: Final = 3
"""Pulls of an image whose registry does not answer as it should; layers that are whole are not loaded again."""
LAST_LINES: Final = 20
_STEP: Final = re.compile(r"^(Step \d+/\d+ :|#\d+ \[)")
"""What a builder begins a step with: the classic one, and BuildKit."""

Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why Docker did not do it, as far as its message tells."""

    code: str
    what: str
    hint: str
    passing: bool = False
    """Whether another attempt may go better."""


_CAUSES: Final[tuple[tuple[str, Cause], ...]] = (
    (
        r"permission denied while trying to connect|dial unix \S+: connect: permission denied",
        Cause("LAB104", "its Docker may not be used by this user", "add the user to the group docker, or use sudo"),
    ),
    (
        r"Cannot connect to the Docker daemon|Is the docker daemon running|error during connect",
        Cause("LAB104", "its Docker does not run", "start it: systemctl start docker"),
    ),
    (r"executable file not found|^docker: No such file", Cause("LAB104", "it has no Docker", "install Docker Engine")),
    (
        r"no space left on device|disk quota exceeded",
        Cause("LAB159", "no space is left for it", "make room (docker system df shows what Docker holds)"),
    ),
    (
        r"toomanyrequests|rate limit",
        Cause("LAB158", "the registry wants no more requests for now", "wait, log in there, or set `images.mirror`"),
    ),
    (
        r"no matching manifest|does not match the (specified|detected host) platform|exec format error",
        Cause("LAB157", "there is none for this host's processor", "choose another image or tag: `images` in lab.yaml"),
    ),
    (
        r"pull access denied|unauthorized|authentication required|denied: |403 Forbidden|401 Unauthorized",
        Cause("LAB157", "there is none of that name, or it is not public", "check the name, or `docker login` there"),
    ),
    (
        r"manifest unknown|not found|No such image|name unknown|invalid reference format|repository name must be",
        Cause("LAB157", "there is none of that name and tag", "check the name: `images` or `image` in lab.yaml"),
    ),
    (
        r"x509|certificate|server gave HTTP response to HTTPS client",
        Cause("LAB158", "the registry is not trusted", "give the host its certificate, or list it as insecure there"),
    ),
    (
        r"dial tcp|no such host|timeout|TLS handshake|connection re(fused|set)|unreachable|EOF|50\d |name resol|cancel",
        Cause("LAB158", "its registry cannot be reached", "check its network, or set `images.mirror`", passing=True),
    ),
)
"""What Docker's messages mean (moby: daemon and client; distribution: registry errors), the most certain first."""


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
            if familiar(reference) in _names(image):
                found[reference] = label
    return found


def pull(site: Site, reference: str, emit: Emit, check: Check) -> None:
    """Pull an image. HostError (LAB104, LAB157, LAB158, LAB159) with the remedy when that fails."""

    def progress(told: Mapping[str, Any]) -> None:
        emit(Progress(host=site.host, path=reference, done=told["done"], total=None))

    for left in range(ATTEMPTS - 1, -1, -1):
        told = site.shell.call("pull", {"reference": reference}, event=progress, check=check)
        if told["code"] == 0:
            return
        cause = cause_of(told["said"])
        if not (left and cause is not None and cause.passing):
            raise HostError(_refused(site, f"cannot have the image `{reference}`", told["said"], cause))


def build(site: Site, image: Image, digest: str, log: Callable[[str], None], check: Check) -> None:
    """Build an image. HostError (LAB119, or what hinders Docker itself) with the last lines when that fails."""

    def heard(told: Mapping[str, Any]) -> None:
        line = str(told["line"])
        if _STEP.match(line):
            log(line)

    values = {"reference": image.reference, "context": site.at(image.context), "label": f"{CONTEXT}={digest}"}
    told = site.shell.call("build", values, event=heard, check=check)
    if told["code"]:
        raise HostError(_not_built(site, image, told["said"]))
    log(f"built {image.reference}")


def remove(site: Site, reference: str) -> None:
    """Remove an image; one that is in use or gone stays so."""
    site.shell.run(["docker", "image", "rm", reference])


def present(shell: Shell, reference: str) -> bool:
    """Whether an image is there, whatever way its name is written."""
    return shell.run(["docker", "image", "inspect", "--format", "{{.Id}}", reference]).ok


def cause_of(said: str) -> Cause | None:
    """Return what Docker's message means, None when nobody knows."""
    return next((cause for text, cause in _CAUSES if re.search(text, said, re.IGNORECASE | re.MULTILINE)), None)


def familiar(reference: str) -> str:
    """Return a name as Docker lists it: without its own registry."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def _refused(site: Site, what: str, said: str, cause: Cause | None) -> Diagnostic:
    detail = "\n".join(said.splitlines()[-LAST_LINES:])
    if cause is None:
        return Diagnostic(code="LAB115", summary=f"`{site.host}` {what}", detail=detail)
    return Diagnostic(code=cause.code, summary=f"`{site.host}` {what}: {cause.what}", detail=detail, hint=cause.hint)


def _not_built(site: Site, image: Image, said: str) -> Diagnostic:
    cause = cause_of(said)
    if cause is not None and cause.code in {"LAB104", "LAB159"}:
        return _refused(site, f"cannot build the image `{image.reference}`", said, cause)
    return Diagnostic(
        code="LAB119",
        summary=f"the image `{image.reference}` could not be built on `{site.host}`",
        detail="\n".join(said.splitlines()[-LAST_LINES:]),
        path=image.origin or None,
        hint=cause.hint if cause is not None and cause.code == "LAB158" else "",
    )


def _names(image: Mapping[str, list[str] | None]) -> set[str]:
    tags = image.get("RepoTags") or []
    names = {name for tag in tags for name in (tag, tag.removesuffix(":latest"))}
    return names | set(image.get("RepoDigests") or [])
