"""The script that gives the database's owner its password on NixOS, on a real PostgreSQL."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.services.test_postgres_real import server
from tests.targets import nixos_labs as nixos

__all__ = ["server"]

AWKWARD = 'it\'s "quoted" $HOME `id` \\n; DROP DATABASE pages'
SERVICES = {"postgres": {"host": "box", "user": "keeper", "database": "pages"}}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_the_owner_logs_in_with_what_is_in_the_file(server: Mapping[str, str], tmp_path: Path) -> None:
    found = nixos.options(nixos.lab({"chat": nixos.ollama(0)}, services=SERVICES), tmp_path / "flake")
    script = found["systemd"]["services"]["test-postgres-password"]["script"]
    assert "--set=password" not in script, "everybody on the machine can see the arguments of programs"
    for tool, name in (("createuser", "keeper"), ("createdb", "pages")):
        assert run(tool, name, **server).returncode == 0
    (tmp_path / "password").write_text(AWKWARD, encoding="utf-8")
    given = run("sh", "-euc", script, **{**server, "CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (given.returncode, given.stderr) == (0, "")
    as_owner = {**server, "PGUSER": "keeper", "PGPASSWORD": AWKWARD, "PGDATABASE": "pages"}
    assert run("psql", "-qtAc", "CREATE TABLE mine (); SELECT current_user", **as_owner).stdout.strip() == "keeper"

    failed = run("sh", "-euc", script.replace("pages", "missing"), **{**server, "CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert failed.returncode != 0, "a service that did not do its work has not started"
    assert AWKWARD not in failed.stdout + failed.stderr
