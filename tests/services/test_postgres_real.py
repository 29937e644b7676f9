"""The task that makes databases, against a PostgreSQL from Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from labctl.services.postgres import CREATE
from tests.embedded.servers import free_port

pytestmark = pytest.mark.slow

PASSWORD = 'it\'s a "secret" $HOME'


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or shutil.which("psql") is None:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql): databases are not really made")
    return found[-1].parent


def _as_postgres() -> list[str]:
    """Return what runs a program as nobody special: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed: PostgreSQL cannot be started by root")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture(scope="module")
def server() -> Iterator[Mapping[str, str]]:
    """Yield the variables that the task gets, of a server that asks for its password."""
    binaries, drop = _binaries(), _as_postgres()
    folder = Path("/tmp") / f"labctl-pg-{os.getpid()}"
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    for path in (folder, folder / "password"):
        os.chown(path, *((65534, 65534) if drop else (-1, -1)))
    port = free_port()
    data = folder / "data"
    try:
        start = [str(binaries / "initdb"), "-D", str(data), "-U", "litellm", "-A", "scram-sha-256"]
        subprocess.run([*drop, *start, f"--pwfile={folder / 'password'}"], check=True, capture_output=True)
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        control = [*drop, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
        subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
        try:
            own = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "litellm", "PGPASSWORD": PASSWORD}
            yield {"PATH": os.environ["PATH"], "PGDATABASE": "postgres", **own}
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)
    finally:
        shutil.rmtree(folder)


def create(server: Mapping[str, str], *names: str) -> subprocess.CompletedProcess[str]:
    """Run the task as its container does."""
    command = ["/bin/sh", "-euc", CREATE, "sh", *names]
    return subprocess.run(command, env=dict(server), capture_output=True, text=True, check=False, timeout=60)


def databases(server: Mapping[str, str]) -> set[str]:
    listed = ["psql", "-qtA", "--command", "SELECT datname FROM pg_database WHERE NOT datistemplate"]
    return set(subprocess.run(listed, env=dict(server), capture_output=True, text=True, check=True).stdout.split())


def test_databases_are_made_once_and_stay(server: Mapping[str, str]) -> None:
    assert create(server, "open_webui", "phoenix").returncode == 0
    assert databases(server) == {"postgres", "open_webui", "phoenix"}
    again = create(server, "open_webui", "phoenix", "more")
    assert (again.returncode, again.stderr) == (0, "")
    assert databases(server) == {"postgres", "open_webui", "phoenix", "more"}


def test_a_wrong_password_fails_and_makes_nothing(server: Mapping[str, str]) -> None:
    before = databases(server)
    assert create({**server, "PGPASSWORD": "wrong"}, "never").returncode != 0
    assert databases(server) == before
