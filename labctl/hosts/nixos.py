"""A NixOS host: its system as one unit, and the services in it as the others.

Only the system is ever changed. Starting its unit builds, activates and confirms (``nixos_switch``); what that did to
the services, NixOS has decided, and a service is only restarted here where it has not been: for a secret's new value,
or because it was stopped by hand. Nothing is enabled or disabled: that is part of the system.

Going back to an older generation needs nothing of its own: it is the apply of an older tree, whose flake gave a system
that the host still has (``Record.systems``), so that nothing is built. That is how a unit that fails its health gate
takes the whole old system back. A flake is built again only when it changed, when somebody renewed its flake.lock, or
when its system has been collected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from labctl.artefact import SYSTEM, Manager, Unit
from labctl.diagnostics import Diagnostic, Severity
from labctl.hosts import nixos_record as record
from labctl.hosts.base import Check, HostError, Ref, Site
from labctl.hosts.nixos_build import build
from labctl.hosts.nixos_reach import run_script
from labctl.hosts.nixos_record import Record, Systems
from labctl.hosts.nixos_switch import Switch
from labctl.hosts.nixos_window import ACTIVATE, BACK
from labctl.hosts.systemd import SystemdManager
from labctl.hosts.watching import Watch
from labctl.plan.observed import SeenUnit, UnitState
from labctl.workload import Start

_MISSING: Final = """\
[ -e /etc/NIXOS ] || { echo 'there is no /etc/NIXOS' >&2; exit 1; }
for name in nixos-rebuild nix-env systemd-run; do
  command -v $name >/dev/null || { echo "there is no $name" >&2; exit 1; }
done
"""
_PRUNE: Final = """\
profile=$1; shift
for link in "$profile"-*-link; do
  for system; do
    [ "$(readlink -f "$link")" = "$system" ] || continue
    number=${link#"$profile"-}
    nix-env -p "$profile" --delete-generations "${number%-link}"
  done
done
"""


class NixosManager:
    """``UnitManager`` for a NixOS host."""

    manager = Manager.NIXOS

    def __init__(self, site: Site) -> None:
        self._site = site
        self._systemd = SystemdManager(site)
        self._watch = Watch()
        self._before: Mapping[str, str] = {}

    def attend(self, watch: Watch) -> None:
        """Tell this one from now on."""
        self._watch = watch

    def missing(self) -> Diagnostic | None:
        """NixOS has to be there, with what it is rebuilt by."""
        ran = run_script(self._site.shell, _MISSING)
        if ran.ok:
            return None
        return Diagnostic(
            code="LAB240",
            summary=f"`{self._site.host}` does not run NixOS",
            detail=ran.tail(3),
            hint="install NixOS there first (docs/nixos.md), or use another target for this host",
        )

    def group(self, unit: Unit, definition: bytes) -> str:  # noqa: ARG002 - part of the protocol
        """Units belong to nothing."""
        return ""

    def observe(self, refs: Sequence[Ref]) -> Mapping[str, SeenUnit]:
        """Ask systemd for all services at once, and look which system is active."""
        seen = self._systemd.observe([ref for ref in refs if ref.id != SYSTEM])
        found = {name: replace(unit, enabled=None) for name, unit in seen.items()}
        for ref in refs:
            if ref.id == SYSTEM:
                found[ref.name] = _seen(record.look(self._site, ref.project))
        return found

    def foresee(self, refs: Sequence[Ref]) -> Iterable[Diagnostic]:
        """Say which units an activation would touch, where the wanted system is in the host's store already."""
        for ref in refs:
            if ref.id != SYSTEM or ref.unit is None:
                continue
            now = record.look(self._site, ref.project)
            new = self._known(now, ref.unit.fingerprint)
            lines = self._switch(ref).preview(new) if new and new != now.current else []
            if lines:
                yield _would(self._site, ref.unit, lines)

    def validate(self, projects: Sequence[str]) -> None:
        """Nothing can be said before the build, and a build that fails touches nothing."""

    def checks(self, projects: Sequence[str]) -> Sequence[Check]:  # noqa: ARG002 - part of the protocol
        """Return none."""
        return []

    def begin(self, refs: Sequence[Ref]) -> None:
        """Note what runs, to see later which services the activation has started anew."""
        self._before = self._invocations([ref for ref in refs if ref.id != SYSTEM])

    def start(self, ref: Ref, *, anew: bool) -> None:
        """Give the host its new system; start or restart a service that the new system left as it was."""
        if ref.id == SYSTEM:
            self._start_system(ref)
            return
        again = anew and self._invocations([ref]).get(ref.id) == self._before.get(ref.id)
        if again and ref.unit is not None and ref.unit.start is Start.ONCE:
            self._systemctl("stop", ref)
        run_script(self._site.shell, 'systemctl reset-failed -- "$1"', ref.id)
        self._systemctl("restart --no-block" if again else "start --no-block", ref)

    def create(self, ref: Ref) -> None:
        """Make the system the one that is booted; there is nothing to be done for a service."""
        if ref.id == SYSTEM:
            now = record.look(self._site, ref.project)
            if now.record is not None and now.current == now.record.system:
                self._switch(ref).keep(now.current)

    def stop(self, ref: Ref) -> None:
        """Stop a service and wait for it."""
        if ref.id != SYSTEM:
            self._systemd.stop(ref)

    def forget(self, ref: Ref) -> None:
        """Take back the system that was there before labctl's first; a service goes with the system that has it."""
        if ref.id != SYSTEM:
            return
        switch, now = self._switch(ref), record.look(self._site, ref.project)
        if now.record is not None:
            switch.settle()
            if not record.is_system(self._site, now.record.before):
                raise HostError(_gone(self._site, now.record.before))
            switch.to(record.look(self._site, ref.project).current, now.record.before)
            ours = {*now.record.systems.values(), now.record.system} - {now.record.before, ""}
            run_script(self._site.shell, _PRUNE, record.PROFILE, *sorted(ours), timeout=300)
            switch.keep(now.record.before)
        record.forget(self._site, ref.project)

    def finish(self, refs: Sequence[Ref], *, data: bool) -> None:
        """All of it has gone with the system."""

    def settle(self) -> None:
        """Systemd has been told by the activation."""

    def leftovers(self, projects: Sequence[Ref]) -> tuple[str, ...]:
        """Name the system when it is still labctl's. A service may run that the system before it had, too."""
        ours = [ref for ref in projects if ref.id == SYSTEM]
        return tuple("its NixOS system" for ref in ours if record.look(self._site, ref.project).record is not None)

    def logs(self, ref: Ref, *, lines: int, follow: bool) -> Iterator[str]:
        """Read a service's journal; of the system that of its activations."""
        if ref.id != SYSTEM:
            return self._systemd.logs(ref, lines=lines, follow=follow)
        units = ["--unit", ACTIVATE, "--unit", BACK]
        tail = ["--lines", str(lines), *(["--follow"] if follow else [])]
        return self._site.shell.stream(["journalctl", *units, "--no-pager", "--output=cat", *tail])

    def _start_system(self, ref: Ref) -> None:
        switch = self._switch(ref)
        switch.settle()
        now = record.look(self._site, ref.project)
        known = now.record or Record(before=now.current)
        fingerprint = ref.unit.fingerprint if ref.unit is not None else ""
        new = self._known(now, fingerprint) or build(self._site, ref, self._watch)
        systems = {**known.systems, fingerprint: new}
        record.save(self._site, replace(known, systems=systems))
        self._watch.step()
        switch.to(now.current, new)
        lock = record.look(self._site, ref.project).lock
        done = replace(known, systems=systems, system=new, fingerprint=fingerprint, lock=lock)
        record.save(self._site, done)

    def _known(self, now: Systems, fingerprint: str) -> str:
        """Return the system that this flake gave before, "" when it has to be built."""
        if now.record is None or now.lock != now.record.lock:
            return ""
        system = now.record.systems.get(fingerprint, "")
        return system if system and record.is_system(self._site, system) else ""

    def _switch(self, ref: Ref) -> Switch:
        return Switch(self._site, ref.name, self._watch)

    def _invocations(self, refs: Sequence[Ref]) -> Mapping[str, str]:
        """Return unit → what tells its present run from all others; "" for one that does not run."""
        if not refs:
            return {}
        script = 'systemctl show --property Id,InvocationID -- "$@"'
        said = run_script(self._site.shell, script, *(ref.id for ref in refs)).out
        found = (block.partition("InvocationID=")[2].split("\n")[0] for block in said.split("\n\n"))
        return dict(zip((ref.id for ref in refs), found, strict=False))

    def _systemctl(self, verb: str, ref: Ref) -> None:
        ran = run_script(self._site.shell, f'systemctl {verb} -- "$1"', ref.id, timeout=300)
        if not ran.ok:
            summary = f"systemctl {verb.partition(' ')[0]} failed on `{self._site.host}`"
            raise HostError(Diagnostic(code="LAB114", summary=summary, detail=ran.tail()))


def _seen(now: Systems) -> SeenUnit:
    """Return a host's system as a unit: it runs while the one that labctl activated last is active."""
    if now.record is None or not now.record.system:
        return SeenUnit(state=UnitState.ABSENT)
    if now.current != now.record.system:
        return SeenUnit(state=UnitState.STOPPED, detail=f"another system is active: {now.current}")
    if now.lock != now.record.lock:
        return SeenUnit(state=UnitState.STOPPED, detail="flake.lock was renewed")
    return SeenUnit(state=UnitState.RUNNING, enabled=now.default == now.current)


def _would(site: Site, unit: Unit, lines: Sequence[str]) -> Diagnostic:
    return Diagnostic(
        code="LAB247",
        severity=Severity.NOTE,
        summary=f"what the activation of its system would do on `{site.host}`",
        detail="\n".join(lines),
        path=unit.origin or None,
    )


def _gone(site: Site, before: str) -> Diagnostic:
    return Diagnostic(
        code="LAB243",
        summary=f"the system that `{site.host}` had before labctl is not in its store any more",
        detail=before,
        hint="activate another system there with `nixos-rebuild switch`, and then remove labctl's folders by hand",
    )
