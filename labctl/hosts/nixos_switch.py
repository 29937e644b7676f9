"""Giving a NixOS host another system so that no mistake in it can lock its owner out.

The protocol, in order; labctl may be killed between any two steps:

1. The host arms a timer that takes the present system back (``nixos_window``).
2. The host activates the new system with ``switch-to-configuration test``: it runs, and is not what is booted.
3. labctl logs in anew, over no connection that was there before, and confirms. That proves that the new system's
   network, firewall, sshd, user, sudo and Python let labctl in. Then, and only then, the timer is disarmed. An
   activation lasts until its services have started; meanwhile labctl logs in anew again and again, so that the host
   need not wait for the end to know that it is shut off.
4. The new system becomes the one that is booted (``nix-env --set``, ``switch-to-configuration boot``).

Without the third step, for whatever reason, the host takes the old system back by the old system's own
switch-to-configuration. A reboot before the fourth boots the old system.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Final

from labctl.artefact import Activation
from labctl.diagnostics import Diagnostic
from labctl.hosts import nixos_window as window
from labctl.hosts.base import HostError, LostError, Shell, Site, Stopped
from labctl.hosts.nixos_reach import Reach, run_script
from labctl.hosts.nixos_record import PROFILE
from labctl.hosts.watching import Watch

POLL: Final = 0.2
"""Seconds between two looks."""
BACK_PATIENCE: Final = 300.0
"""Seconds that a host may take to have its old system back and to answer again."""
ACTIVATION_PATIENCE: Final = 3600.0
"""Seconds that an activation may take: services have limits of their own, and wait for one another."""
HEARD_EVERY: Final = 0.25
"""Part of the time to confirm after which the host hears of labctl again."""
PREVIEW_TIMEOUT: Final = 300.0
"""Seconds for a system to tell what its activation would do."""
SHOWN: Final = 3
"""Failed units of which the last log lines are shown."""
LAST_LINES: Final = 10
SOME_FAILED: Final = 4
"""Exit status of switch-to-configuration: activated, and units failed, of whatever age (nixpkgs, its main.rs)."""
TOO_LATE: Final = 124
"""Stands for the exit status of an activation that does not end."""
NEEDS_REBOOT: Final = 100
"""Exit status of switch-to-configuration: not activated, the init program is another one (as above)."""
_PREVIEW: Final = 'exec "$1/bin/switch-to-configuration" dry-activate'
_FAILED_UNITS: Final = "systemctl list-units --state=failed --plain --no-legend --no-pager"
_LAST_WORDS: Final = f'journalctl --unit "$1" --lines {LAST_LINES} --no-pager --output=cat'
_FAILED: Final = re.compile(r"^warning: the following units failed: (.+)$", re.MULTILINE)
_NOT_DONE: Final = re.compile(r"^Failed to \w+ (\S+?):?(?: .*)?$", re.MULTILINE)


class Switch:
    """One host's way from one system to another."""

    def __init__(self, site: Site, unit: str, watch: Watch) -> None:
        self._site, self._unit, self._watch = site, unit, watch
        self._how = site.root.activation or Activation()
        self._reach = Reach(site)

    def settle(self) -> None:
        """End a window that a killed apply has left open: the old system comes back, as it would by itself."""
        seen = window.look(self._site.shell)
        if seen.settled:
            return
        self._tell("an earlier apply did not confirm its system: the one before it is taken back first")
        window.take_back(self._site.shell)
        self._await_back()

    def to(self, old: str, new: str) -> None:
        """Make the host run, and boot, a system that is in its store.

        Raises:
            HostError: LAB242, LAB243, LAB244: the old system is the active one; LAB246: the new one is, for now.
            LostError: the connection broke. The host has the new system (LAB168), the old one (LAB244), or nobody
                knows (LAB245).
        """
        if old != new:
            failed_before = self._failed_units()
            for line in self.preview(new):
                self._tell(line)
            self._watch.step()
            self._arm(old, new)
            self._watch.step()
            log, code = self._activate(new)
            self._judge(log, code, failed_before)
            self._watch.point()
            self._confirm()
            self._watch.point()
        self.keep(new)
        if self._reach.lost:
            self._reach.give_up()
            raise LostError(_broke(self._site))

    def keep(self, system: str) -> None:
        """Make a system the one that is booted; nothing of its activation is left then."""
        ran = self._reach.ask(partial(window.keep, profile=PROFILE, system=system))
        self._reach.ask(window.close)
        if ran is None:
            raise LostError(_silent(self._site, self._reach))
        if not ran.ok:
            raise HostError(_not_booted(self._site, ran.tail()))

    def _tell(self, text: str) -> None:
        self._watch.tell(self._unit, text)

    def _failed_units(self) -> frozenset[str]:
        lines = run_script(self._site.shell, _FAILED_UNITS).out.splitlines()
        return frozenset(line.split()[0] for line in lines if line.strip())

    def preview(self, new: str) -> list[str]:
        """Return which units a system's activation would touch, in its own words."""
        ran = run_script(self._site.shell, _PREVIEW, new, timeout=PREVIEW_TIMEOUT)
        return [line for line in (ran.out + ran.err).splitlines() if line.startswith("would ")]

    def _arm(self, old: str, new: str) -> None:
        ran = window.arm(self._site.shell, old=old, new=new, limit=self._how.confirm)
        if not ran.ok:
            window.close(self._site.shell)
            raise HostError(_not_armed(self._site, ran.tail()))

    def _activate(self, new: str) -> tuple[str, int]:
        """Activate and wait for the end; return what was printed and the exit status."""
        self._tell(f"activating {new}; taken back after {self._how.confirm:g} s unless a new connection confirms it")
        ran = self._reach.ask(lambda shell: window.activate(shell, new))
        if ran is not None and not ran.ok:
            self._judge(ran.tail(), ran.code, frozenset())
        self._watch.point()
        log, told = "", 0
        began = heard = time.monotonic()
        while time.monotonic() - began < ACTIVATION_PATIENCE:
            self._stop_when_asked()
            seen = self._reach.ask(partial(window.look, seen=len(log.encode())))
            if seen is not None:
                log += seen.log
                told = self._told(log, told, whole=seen.code is not None)
                if not seen.pending:
                    self._await_back()
                    raise self._error(_not_confirmed(self._site, self._how, self._reach))
                if seen.code is not None:
                    return log, seen.code
            if time.monotonic() - heard > HEARD_EVERY * self._how.confirm:
                heard = time.monotonic()
                self._reach.ask_anew(window.hear)
            time.sleep(POLL)
        return f"{log}\nit was not done after {ACTIVATION_PATIENCE:g} s", TOO_LATE

    def _stop_when_asked(self) -> None:
        """Take the old system back first when somebody wants to stop, or has broken the lock."""
        try:
            self._watch.check()
        except LostError:  # it asks the host: what that means is found out here
            return
        except (Stopped, HostError):
            self._reach.ask(window.take_back)
            self._await_back()
            raise

    def _told(self, log: str, told: int, *, whole: bool) -> int:
        """Tell the lines that are new and complete; return how many bytes of the log have been told."""
        end = len(log) if whole else log.rfind("\n") + 1
        for line in log[told:end].splitlines():
            if line.strip():
                self._tell(line)
        return max(told, end)

    def _judge(self, log: str, code: int, failed_before: frozenset[str]) -> None:
        """Go on, or take the old system back at once. Units that had failed before do not count."""
        if code == 0:
            return
        failed = failed_in(log)
        if code == SOME_FAILED and failed and failed <= failed_before:
            self._tell(f"failed before and still: {', '.join(sorted(failed))}")
            return
        words = self._reach.ask(lambda shell: _last_words(shell, sorted(failed - failed_before)))
        self._reach.ask(window.take_back)
        self._await_back()
        raise self._error(_not_activated(self._site, code, sorted(failed - failed_before), words or log))

    def _confirm(self) -> None:
        """Log in anew and say so to the host, while it waits."""
        deadline = time.monotonic() + self._how.confirm + BACK_PATIENCE
        while time.monotonic() < deadline:
            if self._reach.ask_anew(window.confirm):
                self._tell("confirmed" if self._reach.local else "confirmed over a new connection")
                return
            seen = self._reach.ask(window.look)
            if seen is not None and seen.confirmed:
                return  # and its answer was lost
            if seen is not None and not seen.pending:
                break
            time.sleep(POLL)
        self._await_back()
        raise self._error(_not_confirmed(self._site, self._how, self._reach))

    def _await_back(self) -> None:
        """Wait until the old system is active again; a reboot brings it, too. LostError (LAB245) when none answers."""
        deadline = time.monotonic() + BACK_PATIENCE
        while time.monotonic() < deadline:
            seen = self._reach.ask(window.look)
            if seen is not None and seen.settled:
                self._reach.ask(window.close)
                return
            time.sleep(POLL)
        raise LostError(_silent(self._site, self._reach))

    def _error(self, problem: Diagnostic) -> HostError:
        """Return the error; without the apply's own connection nothing else can be done on the host."""
        self._reach.give_up()
        return LostError(problem) if self._reach.lost else HostError(problem)


def failed_in(log: str) -> frozenset[str]:
    """Return the units that switch-to-configuration names as failed."""
    listed = {name.strip() for names in _FAILED.findall(log) for name in names.split(",")}
    return frozenset(listed | set(_NOT_DONE.findall(log)))


def _last_words(shell: Shell, units: list[str]) -> str:
    """Return the last log lines of some units."""
    said = ((unit, run_script(shell, _LAST_WORDS, unit)) for unit in units[:SHOWN])
    return "\n".join(f"{unit}:\n{ran.tail(LAST_LINES)}" for unit, ran in said)


def _not_armed(site: Site, detail: str) -> Diagnostic:
    return Diagnostic(
        code="LAB242",
        summary=f"`{site.host}` could not arm its way back: no new system was activated",
        detail=detail,
        hint="see that systemd-run works there and that /run can be written to",
    )


def _not_activated(site: Site, code: int, failed: list[str], detail: str) -> Diagnostic:
    hint = "put that right in lab.yaml and apply again"
    if code == TOO_LATE:
        what = "its activation does not end"
    elif code == NEEDS_REBOOT:
        what = "it can only be booted"
        hint = "build it there with `nixos-rebuild boot --flake`, reboot, and apply again"
    else:
        what = f"units failed: {', '.join(failed)}" if failed else f"exit status {code}"
    return Diagnostic(
        code="LAB243",
        summary=f"the new system of `{site.host}` did not start: {what}; the old one was taken back",
        detail="\n".join(detail.splitlines()[-2 * LAST_LINES :]),
        hint=hint,
    )


def _not_confirmed(site: Site, how: Activation, reach: Reach) -> Diagnostic:
    why = reach.why.diagnostic.summary if reach.why is not None else ""
    return Diagnostic(
        code="LAB244",
        summary=f"`{site.host}` took its old system back: no new connection came about within {how.confirm:g} s",
        detail=why,
        hint="look for what keeps SSH out (firewall, address, sshd, users); set `nixos.confirm` if it only took longer",
    )


def _silent(site: Site, reach: Reach) -> Diagnostic:
    return Diagnostic(
        code="LAB245",
        summary=f"`{site.host}` does not answer any more, not even after the time to take its old system back",
        detail=reach.why.diagnostic.summary if reach.why is not None else "",
        hint="reboot it: it boots the system that was confirmed last; then apply again",
    )


def _not_booted(site: Site, detail: str) -> Diagnostic:
    return Diagnostic(
        code="LAB246",
        summary=f"the new system of `{site.host}` runs, but could not be made the one that is booted",
        detail=detail,
        hint="see that there is room on its boot partition, and apply again",
    )


def _broke(site: Site) -> Diagnostic:
    return Diagnostic(
        code="LAB168",
        summary=f"`{site.host}` has its new system, confirmed over a new connection; the old one broke meanwhile",
        hint="run the same command again: it goes on where this one stopped",
    )
