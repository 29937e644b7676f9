"""SSH servers for tests, and shells of every kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labctl.artefact import HostRoot, Login, Manager
from labctl.hosts.connect import CONNECTIONS
from labctl.hosts.local import LocalShell
from labctl.hosts.shell import AgentShell
from labctl.hosts.ssh import SshShell
from tests.ssh.servers import MISSING, Net, Sshd, have_sshd


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """A network without servers yet."""
    if not have_sshd():
        pytest.skip(MISSING)
    made = Net.make()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    CONNECTIONS.close()
    made.close()


@pytest.fixture
def server(net: Net) -> Sshd:
    """A server whose key is known."""
    return net.serve()


@pytest.fixture(params=["here", "pipe", "ssh"])
def shell(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AgentShell]:
    """The same shell three times: direct, with an agent behind pipes, with an agent behind SSH."""
    if request.param == "here":
        yield LocalShell()
        return
    address, login = "127.0.0.1", Login()
    if request.param == "pipe":
        fake = tmp_path_factory.mktemp("bin") / "pipe"
        fake.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
        fake.chmod(0o755)
        monkeypatch.setenv("LABCTL_SSH", str(fake))
    else:
        found: Sshd = request.getfixturevalue("server")
        address, login = found.address, Login(port=found.port)
    made = SshShell("far", address, login, sudo=False, password=lambda _: None)
    yield made
    made.close()


def root_of(server: Sshd, folder: str = "/", **login: object) -> HostRoot:
    """Return the root of a host behind a server."""
    return HostRoot(
        host="far",
        root=folder,
        state="state",
        managers=(Manager.SYSTEMD,),
        address=server.address,
        login=Login(port=server.port, **login),  # type: ignore[arg-type]
    )
