"""The password that sudo wants on hosts: asked for on the terminal, kept in memory, never an argument."""

from __future__ import annotations

import getpass
import sys

from labctl.diagnostics import Diagnostic, LabctlError


def sudo_password(*, ask: bool) -> None:
    """Ask for the password once, for all hosts, when that is wanted. LabctlError when there is no terminal."""
    if not ask:
        return
    if not sys.stdin.isatty():
        hint = "set LABCTL_SUDO_PASSWORD, or let the login use sudo without a password"
        summary = "there is no terminal to ask for the sudo password on"
        raise LabctlError([Diagnostic(code="LAB126", summary=summary, hint=hint)])
    from labctl.hosts.connect import CONNECTIONS

    password = getpass.getpass("password for sudo on the hosts: ", stream=sys.stderr)
    CONNECTIONS.sudo_password = lambda _: password
