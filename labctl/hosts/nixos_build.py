"""Building a NixOS host's system from the flake that lies there, on the host or on a machine that it logs in to."""

from __future__ import annotations

import re
from collections import deque
from pathlib import PurePosixPath
from typing import Final

from labctl.artefact import Activation
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, Ref, Site
from labctl.hosts.nixos_reach import run_script
from labctl.hosts.nixos_record import FOLDER, RESULT
from labctl.hosts.watching import Watch

LAST_LINES: Final = 30
"""Lines of a build that failed that are shown."""
_END: Final = "labctl-build-ended"
_BUILD: Final = f"""\
PATH=/run/current-system/sw/bin:/run/wrappers/bin:$PATH
cd "$1" && rm -f result && nixos-rebuild build --flake "$2" ${{3:+--build-host "$3"}} 2>&1
echo "{_END} $?"
"""
_STORE: Final = re.compile(r"(/nix/store/[0-9a-z]{32}-[^\s/'\"]+)$")
_PLACE: Final = re.compile(r"((?:hosts/[^\s:'\"]+|flake)\.nix):(\d+)")


def build(site: Site, ref: Ref, watch: Watch) -> str:
    """Build and return the system's path in the host's store. HostError (LAB241) with the last lines when that fails.

    The flake is named by ``path:``, so that Nix takes what lies in its folder, be that in somebody's git repository or
    not. Nothing that runs is touched.
    """
    how = site.root.activation or Activation()
    folder = str(PurePosixPath(site.at(ref.project)).parent)
    site.shell.make_folders(site.state(FOLDER))
    arguments = (site.state(FOLDER), f"path:{folder}#{site.host}", how.build or "")
    watch.tell(ref.name, f"building the system on {how.build or 'the host'}")
    said, code = deque[str](maxlen=LAST_LINES), ""
    for line in site.shell.stream(["/bin/sh", "-c", _BUILD, "sh", *arguments]):
        watch.check()
        if line.startswith(_END):
            code = line.removeprefix(_END).strip()
        elif line.strip():
            said.append(line)
            watch.tell(ref.name, line)
    built = _built(site, list(said)) if code == "0" else ""
    if not built:
        raise HostError(_not_built(site, ref, list(said)))
    return built


def _built(site: Site, said: list[str]) -> str:
    """Return what was built: what the link says; a build elsewhere leaves none, but tells it at the end."""
    link = run_script(site.shell, 'readlink -f "$1"', site.state(RESULT)).out.strip()
    if link.startswith("/nix/store/"):
        return link
    told = (found[1] for line in reversed(said) if (found := _STORE.search(line)))
    return next(told, "")


def _not_built(site: Site, ref: Ref, said: list[str]) -> Diagnostic:
    places = [f"{found[1]}, line {found[2]}" for line in said for found in _PLACE.finditer(line)]
    where = f": see {places[-1]}" if places else ""
    return Diagnostic(
        code="LAB241",
        summary=f"the system of `{site.host}` could not be built{where}",
        detail="\n".join(said),
        path=(ref.unit.origin or None) if ref.unit is not None else None,
        hint="nothing that runs there was touched; put it right in lab.yaml and apply again",
    )
