"""``services.postgresql`` with a database, its owner, and a password that is set from a secret when it starts."""

from __future__ import annotations

from typing import Final

from labctl.emit import nix
from labctl.targets import shared
from labctl.targets.nixos import program
from labctl.targets.nixos.run import Made, Run
from labctl.targets.nixos.values import given
from labctl.workload import SecretText

_SET_LOGIN: Final = """\
psql --no-psqlrc --quiet --set=owner={user} --set=password="$(cat "$CREDENTIALS_DIRECTORY/password")" <<'SQL'
ALTER ROLE :"owner" WITH LOGIN PASSWORD :'password';
ALTER DATABASE {database} OWNER TO :"owner";
SQL
"""
"""Names are identifiers (the block's pattern); the password never becomes part of the text."""


def postgresql(run: Run) -> Made | None:
    """Return the server; a task that only makes databases (no ports) is not one."""
    workload = run.workload
    if not workload.ports:
        return None
    variables = shared.Environment.of(workload, workload.forms[0], {})
    port = workload.port("postgres")
    database, user = variables.plain["POSTGRES_DB"], variables.plain["POSTGRES_USER"]
    password: SecretText = variables.secret["POSTGRES_PASSWORD"]
    value: dict[str, nix.Value] = {
        "enable": True,
        "settings": given(
            {
                "port": port.published or port.listen,
                "listen_addresses": None if port.bind == "127.0.0.1" else nix.Call("lib.mkForce", port.bind),
            }
        ),
        "ensureDatabases": [database],
        "ensureUsers": [{"name": user}],
        "authentication": f"host {database} {user} {_from(port.bind)} scram-sha-256\n",
    }
    task: dict[str, nix.Value] = {
        "description": f"password of {user} and owner of {database}",
        "wantedBy": ["multi-user.target"],
        "requires": ["postgresql.target"],
        "after": ["postgresql.target"],
        "path": [nix.Ref("config.services.postgresql.finalPackage")],
        "environment": {"PGPORT": str(port.published or port.listen)},
        "script": _SET_LOGIN.format(user=user, database=database),
        "serviceConfig": {
            "Type": "oneshot",
            "RemainAfterExit": True,
            "User": "postgres",
            "LoadCredential": program.loaded(run.host, workload, ["password"]),
        },
    }
    return Made(
        options={
            "services": {"postgresql": value},
            "systemd": {"services": {f"{program.own_name(run.host, workload)}-password": task}},
        },
        unit="postgresql.service",
        form=workload.forms[0],
        module=True,
        restarts=True,
        credentials={"password": password},
    )


def _from(bind: str) -> str:
    """Return who may log in with a password: this machine, or whoever the firewall lets through."""
    return "127.0.0.1/32" if bind == "127.0.0.1" else "samenet"
