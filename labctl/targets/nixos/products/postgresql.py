"""``services.postgresql`` with a database, its owner, and a password that is set from a secret when it starts."""

from __future__ import annotations

from typing import Final

from labctl.emit import nix, shell
from labctl.targets import shared
from labctl.targets.nixos import program
from labctl.targets.nixos.run import Made, Run
from labctl.targets.nixos.values import given, merge
from labctl.workload import Start, Workload

_SET_LOGIN: Final = """\
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=owner={user} <<'SQL'
\\set password `cat "$CREDENTIALS_DIRECTORY/password"`
ALTER ROLE :"owner" WITH LOGIN PASSWORD :'password';
ALTER DATABASE {database} OWNER TO :"owner";
SQL
"""
"""Names are identifiers (the block's pattern); the password becomes part of no text and of no argument, which others
could see."""


_CREATE: Final = """\
for name in {names}; do
  found=$(psql --no-psqlrc -qtA --command "SELECT 1 FROM pg_database WHERE datname = '$name'")
  [ "$found" = 1 ] || createdb --owner={user} "$name"
done
"""


def postgresql(run: Run) -> Made | None:
    """Return the server, or the task that makes the databases of other services; labctl's forms of neither are used."""
    if not run.workload.ports:
        return _databases(run) if run.workload.start is Start.ONCE else None
    workload = run.workload
    variables = shared.Environment.of(workload, workload.forms[0], {})
    port = workload.port("postgres")
    database, user = variables.plain["POSTGRES_DB"], variables.plain["POSTGRES_USER"]
    value: dict[str, nix.Value] = {
        "enable": True,
        "settings": given(
            {
                "port": _number(workload),
                "listen_addresses": None if port.bind == "127.0.0.1" else nix.Call("lib.mkForce", port.bind),
            }
        ),
        "ensureDatabases": [database],
        "ensureUsers": [{"name": user}],
        "authentication": f"host all {user} {_from(port.bind)} scram-sha-256\n",
    }
    name = f"{program.own_name(run.host, workload)}-password"
    task = _task(workload, f"password of {user}, who owns {database}", _SET_LOGIN.format(user=user, database=database))
    loaded: dict[str, nix.Value] = {"LoadCredential": program.loaded(run.host, workload, ["password"])}
    password = merge(task, {"serviceConfig": loaded})
    return Made(
        options={"services": {"postgresql": value}, "systemd": {"services": {name: password}}},
        unit="postgresql.service",
        form=workload.forms[0],
        module=True,
        restarts=True,
        credentials={"password": variables.secret["POSTGRES_PASSWORD"]},
    )


def _databases(run: Run) -> Made:
    """Return the task: as the administrator, over the server's socket."""
    server = next(w for w in run.siblings.values() if w.product == "postgresql" and w.ports)
    form, user = run.workload.forms[0], shared.Environment.of(run.workload, run.workload.forms[0], {}).plain["PGUSER"]
    names = shell.words(form.args[form.args.index("sh") + 1 :])
    task = _task(server, run.workload.description, _CREATE.format(names=names, user=user))
    name = program.own_name(run.host, run.workload)
    before = f"{program.own_name(run.host, server)}-password.service"
    order: dict[str, nix.Value] = {"requires": [before], "after": [before]}
    options: dict[str, nix.Value] = {"systemd": {"services": {name: merge(task, order)}}}
    return Made(options=options, unit=f"{name}.service", form=form, module=True, restarts=True)


def _task(server: Workload, description: str, script: str) -> dict[str, nix.Value]:
    return {
        "description": description,
        "wantedBy": ["multi-user.target"],
        "requires": ["postgresql.target"],
        "after": ["postgresql.target"],
        "path": [nix.Ref("config.services.postgresql.finalPackage")],
        "environment": {"PGPORT": str(_number(server))},
        "script": script,
        "serviceConfig": {"Type": "oneshot", "RemainAfterExit": True, "User": "postgres"},
    }


def _number(server: Workload) -> int:
    port = server.port("postgres")
    return port.published or port.listen


def _from(bind: str) -> str:
    """Return who may log in with a password: this machine, or whoever the firewall lets through."""
    return "127.0.0.1/32" if bind == "127.0.0.1" else "samenet"
