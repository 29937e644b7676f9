"""Which hosts are this machine. What its shell does is tested with all shells: ``tests/ssh/test_shell.py``."""

from __future__ import annotations

import socket

from labctl.hosts.connect import is_here


def test_this_machine_and_others() -> None:
    assert is_here("localhost")
    assert is_here("127.0.0.1")
    assert is_here("127.0.0.9")
    assert is_here(socket.gethostname())
    assert not is_here("192.0.2.1")
