"""The time between a new system and its confirmation, as it lies on the host: a timer, two scripts and a token.

Whoever moves the token decides, and only one can: ``pending`` becomes ``confirmed`` (labctl, over a new connection) or
``taken-back`` (the timer's script, which then lets the old system switch to itself). An activation may take as long as
its services need to start. Meanwhile labctl shows, by new connections, that it gets in: the timer's script waits for as
long as it hears of that, and no longer. All of it is in ``/run``: a reboot ends it, and boots the system that was the
default before, because the new one becomes it only when it is confirmed.

Both scripts run as transient units of the host's systemd. They outlive labctl, its connection and sshd, and a
``daemon-reexec``; switch-to-configuration leaves alone what has no file in ``/etc/systemd/system`` (nixpkgs,
pkgs/by-name/sw/switch-to-configuration-ng, src/main.rs).
"""

from __future__ import annotations

from typing import Final

from labctl.hosts.base import Ran, Shell
from labctl.hosts.nixos_reach import run_script
from labctl.values import dataclass

RUN: Final = "/run/labctl-nixos"
"""Folder of the scripts, the token and what was printed."""
BACK: Final = "labctl-nixos-back"
"""Name of the timer and its service, which take the old system back."""
ACTIVATE: Final = "labctl-nixos-activate"
"""Name of the service that activates the new one."""
KEEP: Final = "labctl-nixos-keep"
"""Name of the service that makes it the one that is booted: a boot loader is not to be left half written."""
KEEP_TIMEOUT: Final = 600.0
"""Seconds for that."""
OLD_ROOT: Final = "/nix/var/nix/gcroots/labctl-nixos-old"
"""Keeps the old system from being collected while it may be needed."""

_ACTIVATE: Final = f"""\
# Activates a new system: written by labctl, run by {ACTIVATE}.service. $1: the system.
cd {RUN} || exit 1
for attempt in 1 2 3 4 5 6 7 8 9; do
  "$1/bin/switch-to-configuration" test >log 2>&1
  result=$?
  grep -q '^Could not acquire lock$' log || break  # somebody else's, or a dry run of it
  sleep 1
done
echo $result >code.part
cat log  # for the journal
mv code.part code
"""
_BACK: Final = f"""\
# Takes the old system back unless the new one was confirmed: written by labctl, run by {BACK}.service.
# $1: the old system. $2: seconds without a new connection of labctl's after which that is done.
cd {RUN} || exit 0
while [ -e pending ] && [ -e heard ] && [ ! -e now ]; do
  [ $(($(cut -d. -f1 /proc/uptime) - $(cat heard))) -lt "$2" ] || break
  sleep 1
done
mv pending taken-back 2>/dev/null || exit 0
systemctl stop {ACTIVATE}.service  # two switches at once are refused
for attempt in 1 2 3 4 5; do
  "$1/bin/switch-to-configuration" test >back-log 2>&1
  result=$?
  cat back-log
  case $result in 0 | 4 | 100) break ;; esac
  sleep 2
done
echo $result >back-code.part
mv back-code.part back-code
"""
_LOOK: Final = f"""\
cd {RUN} 2>/dev/null || exit 0
echo there
for name in pending confirmed taken-back; do if [ -e $name ]; then echo $name; fi; done
for name in code back-code; do if [ -e $name ]; then echo "$name $(cat $name)"; fi; done
echo log
tail -c "+$1" log 2>/dev/null
"""
_ARM: Final = f"""\
set -e
systemctl stop {BACK}.timer {BACK}.service {ACTIVATE}.service 2>/dev/null || true
systemctl reset-failed {BACK}.service {ACTIVATE}.service 2>/dev/null || true
rm -rf {RUN}
mkdir -m 0700 {RUN}
ln -sfn "$1" {OLD_ROOT}
cat >{RUN}/back <<'END'
{_BACK}END
cat >{RUN}/activate <<'END'
{_ACTIVATE}END
echo "$1" >{RUN}/old
echo "$2" >{RUN}/pending
systemd-run --quiet --collect --no-ask-password --unit={BACK} --on-active="$3" --timer-property=AccuracySec=100ms \\
  --property=Type=oneshot --setenv=PATH="$1/sw/bin:$PATH" --description='Takes the old system back, for labctl' \\
  -- /bin/sh {RUN}/back "$1" "$3"
systemctl is-active --quiet {BACK}.timer
"""
_START: Final = f"""\
mkdir {RUN}/asked || exit 0
exec systemd-run --quiet --collect --no-ask-password --no-block --unit={ACTIVATE} --property=Type=oneshot \\
  --setenv=PATH="$1/sw/bin:$PATH" --description='Activates a new system, for labctl' -- /bin/sh {RUN}/activate "$1"
"""
_NOW: Final = f"""\
cd {RUN} || exit 0
: >now
systemctl start --no-block {BACK}.service && exit
exec systemd-run --quiet --collect --no-ask-password --no-block --unit={BACK}-now --property=Type=oneshot \\
  --setenv=PATH="$(cat old)/sw/bin:$PATH" -- /bin/sh {RUN}/back "$(cat old)" 0
"""
_KEEP: Final = f"""\
while :; do
  case $(systemctl show --property ActiveState --value {KEEP}.service) in
    activating | active | deactivating) sleep 1 ;;
    *) break ;;
  esac
done
mkdir -p -m 0700 {RUN} || exit
cat >{RUN}/keep <<'END'
exec >{RUN}/keep-log 2>&1
nix-env -p "$1" --set "$2" && exec "$2/bin/switch-to-configuration" boot
END
systemd-run --quiet --collect --wait --no-ask-password --unit={KEEP} --property=Type=oneshot \
  --setenv=PATH="$PATH" --description='Makes a system the one that is booted, for labctl' \
  -- /bin/sh {RUN}/keep "$1" "$2"
result=$?
cat {RUN}/keep-log
exit $result
"""
_CLOSE: Final = f"""\
systemctl stop {BACK}.timer {BACK}.service 2>/dev/null
rm -rf {RUN} {OLD_ROOT}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a host shows of the window.

    Attributes:
        there: one was opened and not closed, and the host has not been restarted since.
        pending: nobody has decided yet.
        confirmed: the new system is kept.
        taken_back: the old system was, or is being, taken back.
        code: exit status of the activation; None while it goes on.
        back_code: exit status of the way back; None while it goes on.
        log: what the activation printed, from the wanted byte on.
    """

    there: bool = False
    pending: bool = False
    confirmed: bool = False
    taken_back: bool = False
    code: int | None = None
    back_code: int | None = None
    log: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing will happen by itself any more."""
        return not self.there or (not self.pending and (not self.taken_back or self.back_code is not None))


def look(shell: Shell, seen: int = 0) -> Seen:
    """Look at the window; of the log only what follows so many bytes."""
    lines, _, log = run_script(shell, _LOOK, str(seen + 1)).out.partition("log\n")
    words = {name: value for name, _, value in (line.partition(" ") for line in lines.splitlines())}
    code, back = (int(words[name]) if words.get(name, "").isdecimal() else None for name in ("code", "back-code"))
    return Seen(
        there="there" in words,
        pending="pending" in words,
        confirmed="confirmed" in words,
        taken_back="taken-back" in words,
        code=code,
        back_code=back,
        log=log,
    )


def arm(shell: Shell, *, old: str, new: str, limit: float) -> Ran:
    """Open a window: from now on the host takes the old system back unless somebody confirms the new one."""
    return run_script(shell, _ARM, old, new, str(max(1, round(limit))))


def activate(shell: Shell, new: str) -> Ran:
    """Let the host activate the new system; returns at once. It does so once, however often it is asked."""
    return run_script(shell, _START, new)


def hear(shell: Shell) -> bool:
    """Let the host know that labctl gets in now."""
    return run_script(shell, f"cd {RUN} && cut -d. -f1 /proc/uptime >heard.part && mv heard.part heard").ok


def confirm(shell: Shell) -> bool:
    """Keep the new system; False when the old one is being taken back already."""
    return run_script(shell, f"mv -T {RUN}/pending {RUN}/confirmed").ok


def keep(shell: Shell, profile: str, system: str) -> Ran:
    """Make a system the one that is booted, and wait for that; a connection that is lost meanwhile does not end it."""
    return run_script(shell, _KEEP, profile, system, timeout=KEEP_TIMEOUT)


def take_back(shell: Shell) -> Ran:
    """Let the host take the old system back now; returns at once."""
    return run_script(shell, _NOW)


def close(shell: Shell) -> None:
    """Remove what there is of a window that is decided."""
    run_script(shell, _CLOSE)
