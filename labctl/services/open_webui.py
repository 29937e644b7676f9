"""Open WebUI: a chat page on the gateway, with accounts of its own.

Variables: docs.openwebui.com/reference/env-configuration (for v0.9.6). What stands here wins at every start
(``ENABLE_PERSISTENT_CONFIG=False``): settings that people click are gone after a restart, those of the lab are true.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.model.base import Name, PublicName, SecretName
from labctl.services import Access, ServiceAsk
from labctl.services.common import Plain, Stored, container, data, secret
from labctl.workload import EnvValue, Health, Task, Workload

LISTEN: Final = 8080
_QUIET: Final[dict[str, EnvValue]] = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
}


class OpenWebUIBlock(Stored):
    """A chat page."""

    name: Annotated[str | None, Field(description="what the page is called; default: the lab's name")] = None
    admin: Annotated[
        str, Field(description="e-mail address of the first administrator", pattern=r"^[^@\s]+@[^@\s]+$")
    ] = "admin@localhost"
    admin_password: Annotated[SecretName, Field(description="secret that holds the administrator's first password")] = (
        "OPEN_WEBUI_ADMIN_PASSWORD"  # noqa: S105 - a name
    )
    session_key: Annotated[
        SecretName, Field(description="secret that signs sessions; a new value logs everybody out")
    ] = "OPEN_WEBUI_SECRET_KEY"
    key: Annotated[
        SecretName, Field(description="secret with its own key of the gateway; its value starts with `sk-`")
    ] = "OPEN_WEBUI_GATEWAY_KEY"
    sign_up: Annotated[bool, Field(description="let people make accounts; each waits for an administrator")] = False
    default_model: Annotated[PublicName | None, Field(description="model of a new chat")] = None
    search: Annotated[bool, Field(description="search the web, where the lab has SearXNG")] = True
    database: Annotated[
        Name | None, Field(description="PostgreSQL service for its data; default: SQLite in its volume")
    ] = None


class OpenWebUI(Plain):
    """The service."""

    name = "open-webui"
    options = OpenWebUIBlock
    ports = MappingProxyType({"http": LISTEN})
    page = "http"
    calls = ("searxng",)

    def check(self, name: str, options: OpenWebUIBlock) -> Iterable[Diagnostic]:
        """Return the problems of its places."""
        return super().check(name, options)

    def client(self, options: OpenWebUIBlock) -> tuple[Access, str]:
        """Ask for models, with a key of its own."""
        return Access.MODELS, options.key

    def keeps(self, options: OpenWebUIBlock) -> str | None:
        """Return the database service that lab.yaml names."""
        return options.database

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the one server."""
        options: OpenWebUIBlock = ask.options
        after = (*(ask.gateway.after if ask.gateway else ()), *_databases(ask))
        search = ask.other("searxng")
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(container(ask, data(ask, "/app/backend/data")),),
            product="open-webui",
            env={**_own(ask), **_gateway(ask), **_search(ask), **_database(ask), **options.extra_env},
            ports=tuple(ask.ports.values()),
            health=Health(path="/health", start_period=300),
            after=(*after, *((search.name,) if search and search.after and options.search else ())),
            memory_limit=options.memory_limit,
            public=("http",),
            origin=ask.origin,
            extra=options.extra,
            description="Open WebUI",
        )
        return (workload,)


def _own(ask: ServiceAsk) -> dict[str, EnvValue]:
    options: OpenWebUIBlock = ask.options
    return {
        "PORT": str(LISTEN),
        "WEBUI_NAME": options.name or ask.lab,
        "WEBUI_SECRET_KEY": secret(options.session_key),
        "WEBUI_ADMIN_EMAIL": options.admin,
        "WEBUI_ADMIN_PASSWORD": secret(options.admin_password),
        "ENABLE_SIGNUP": str(options.sign_up),
        "DEFAULT_USER_ROLE": "pending",
        "ENABLE_PERSISTENT_CONFIG": "False",
        "ENABLE_OLLAMA_API": "False",
        **_QUIET,
    }


def _gateway(ask: ServiceAsk) -> dict[str, EnvValue]:
    """Return how it reaches the models, and which of them turns documents into vectors."""
    if ask.gateway is None:
        return {"ENABLE_OPENAI_API": "False"}
    url, key = f"{ask.gateway.url}/v1", secret(ask.gateway.key.name)
    env: dict[str, EnvValue] = {"ENABLE_OPENAI_API": "True", "OPENAI_API_BASE_URL": url, "OPENAI_API_KEY": key}
    chat, embed = (ask.gateway.models.get(task, ()) for task in (Task.CHAT, Task.EMBED))
    default = ask.options.default_model or (chat[0] if chat else None)
    env |= {"DEFAULT_MODELS": default} if default else {}
    if embed:
        env |= {"RAG_EMBEDDING_ENGINE": "openai", "RAG_EMBEDDING_MODEL": embed[0]}
        env |= {"RAG_OPENAI_API_BASE_URL": url, "RAG_OPENAI_API_KEY": key}
    return env


def _search(ask: ServiceAsk) -> dict[str, EnvValue]:
    found = ask.other("searxng")
    if found is None or not ask.options.search:
        return {"ENABLE_WEB_SEARCH": "False"}
    query = f"{found.url()}/search?q=<query>"
    return {"ENABLE_WEB_SEARCH": "True", "WEB_SEARCH_ENGINE": "searxng", "SEARXNG_QUERY_URL": query}


def _database(ask: ServiceAsk) -> dict[str, EnvValue]:
    return {"DATABASE_URL": ask.database.url} if ask.database else {}


def _databases(ask: ServiceAsk) -> tuple[str, ...]:
    return (ask.database.workload,) if ask.database and ask.database.workload else ()


service = OpenWebUI()
