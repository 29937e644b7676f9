"""What LiteLLM needs done once: its tables, and the keys of the lab's own services."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from labctl.gateways import WORKLOAD, Client, GatewayAsk
from labctl.gateways.litellm.config import MASTER_KEY
from labctl.placed import DatabaseLink
from labctl.workload import ConfigFile, Container, EnvValue, Native, Port, SecretRef, SecretText, Start, Workload

TABLES: Final = f"{WORKLOAD}-tables"
KEYS: Final = f"{WORKLOAD}-keys"
_SCRIPT: Final = "labctl_keys"


def tables(ask: GatewayAsk, database: DatabaseLink, image: str) -> Workload:
    """Return the task that brings the database to what this release wants.

    The proxies themselves leave it alone (``DISABLE_SCHEMA_UPDATE``): docs.litellm.ai/docs/proxy/database_migrations.
    """
    skip = "--skip_server_startup"
    return Workload(
        name=TABLES,
        host=ask.host.name,
        forms=(
            Container(image=image, args=(skip,), probe=ask.probe),
            Native(program="{python}", args=("-m", "labctl.embedded.litellm_proxy", skip)),
        ),
        env={"DATABASE_URL": database.url, "DISABLE_SCHEMA_UPDATE": "false", "LITELLM_MODE": "PRODUCTION"},
        after=(database.workload,) if database.workload else (),
        start=Start.ONCE,
        time_limit=1800,
        serves_to=(),
        origin=("gateway",),
        description="tables of LiteLLM",
    )


def keys(ask: GatewayAsk, proxy: Workload, image: str) -> Workload:
    """Return the task that registers the services' keys as virtual keys."""
    script = shipped(_SCRIPT)
    port = proxy.port()
    near = f"http://{WORKLOAD}:{port.listen}"
    return Workload(
        name=KEYS,
        host=ask.host.name,
        forms=(
            Container(
                image=image, entrypoint=("python3",), args=(script.target,), probe=ask.probe, env={"GATEWAY_URL": near}
            ),
            Native(program="{python}", args=(f"{{config:{script.name}}}",), env={"GATEWAY_URL": _own_url(port)}),
        ),
        env={MASTER_KEY: SecretText((SecretRef(ask.options.keys.master),)), **client_keys(ask)},
        files=(script,),
        after=(WORKLOAD,),
        start=Start.ONCE,
        serves_to=(),
        origin=("gateway",),
        description="keys of the lab's services",
    )


def client_keys(ask: GatewayAsk) -> dict[str, EnvValue]:
    """Return the variables with the services' keys, read by labctl_auth.py and labctl_keys.py."""
    return {_variable(client): SecretText((SecretRef(client.secret),)) for client in ask.clients}


def shipped(name: str) -> ConfigFile:
    """Return one of the scripts that run inside LiteLLM."""
    file = f"{name}.py"
    text = files(__package__).joinpath("shipped", file).read_text(encoding="utf-8")
    return ConfigFile(name=file, content=text, target=f"/app/{file}")


def _variable(client: Client) -> str:
    what = "METRICS" if client.metrics else "MODELS"
    return f"LABCTL_KEY_{what}_{client.name.replace('-', '_').upper()}"


def _own_url(port: Port) -> str:
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(port.bind, port.bind)  # noqa: S104 - compared, not bound
    return f"http://{f'[{address}]' if ':' in address and '[' not in address else address}:{port.published}"
