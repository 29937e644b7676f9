"""Reaching a host whose network or firewall may just have changed: the old connection while it lasts, then new ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

from labctl.hosts.base import HostError, LostError, Ran, Shell, Site
from labctl.hosts.connect import CONNECTIONS
from labctl.hosts.ssh import SshShell

V = TypeVar("V")
_PATH: Final = "PATH=/run/current-system/sw/bin:/run/wrappers/bin:$PATH\n"
"""Where NixOS has its programs: not every login knows."""


def run_script(shell: Shell, script: str, *arguments: str, timeout: float = 60) -> Ran:
    """Run a script of ``sh`` with NixOS's programs at hand; it gets the arguments as ``$1``, ``$2``."""
    return shell.run(["/bin/sh", "-c", _PATH + script, "sh", *arguments], timeout=timeout)


class Reach:
    """The ways to one host. Whatever is asked through it may be asked again over another connection."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lost = False
        self._agent = site.shell.whoami()
        self.why: HostError | None = None
        """Why the last try to get there failed."""

    @property
    def lost(self) -> bool:
        """Whether the connection of the apply has broken: nothing but what is asked here can go on."""
        return self._lost

    @property
    def local(self) -> bool:
        """Whether the host is this machine: there is no way to it that could be lost."""
        return not isinstance(self._site.shell, SshShell)

    def site(self, shell: Shell) -> Site:
        """Return the host as it is reached over another connection."""
        return replace(self._site, shell=shell)

    def give_up(self) -> None:
        """End what is left of a lost connection: the host may not have noticed, and its agent would keep the lock."""
        if self._lost:
            self.ask_anew(self._end_agent)

    def _end_agent(self, shell: Shell) -> None:
        if shell.alive(self._agent):
            run_script(shell, 'kill -KILL "$1"', self._agent.partition(".")[0])

    @contextlib.contextmanager
    def anew(self) -> Iterator[Shell]:
        """Log in anew, as the same user, over no connection that is shared; of this machine there is but one."""
        if self.local:
            yield self._site.shell
            return
        shell = CONNECTIONS.fresh(self._site.root)
        try:
            yield shell
        finally:
            shell.close()

    def ask(self, question: Callable[[Shell], V]) -> V | None:
        """Ask over the connection that there is, else over a new one. None when the host cannot be reached."""
        if not self._lost:
            try:
                return question(self._site.shell)
            except LostError as error:
                self._lost, self.why = True, error
        return self.ask_anew(question)

    def ask_anew(self, question: Callable[[Shell], V]) -> V | None:
        """Ask over a new connection. None when there is none to be had."""
        try:
            with self.anew() as shell:
                return question(shell)
        except LostError as error:
            self.why = error
            return None
