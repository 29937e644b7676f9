"""llama-swap's configuration, as strictly as its schema and its own loader take it together.

An own model after config-schema.json and internal/config/load.go of mostlygeek/llama-swap, v250: keys that it does not
know are refused (its program ignores them), and so is what its program would stop at.
"""
# ruff: noqa: D101, N815 - the names are the file format's

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tests.gateways.matrix import expansions

Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Timeouts(Strict):
    connect: Count = 30
    keepalive: Count = 30
    responseHeader: Count = 0
    tlsHandshake: Count = 10
    expectContinue: Count = 1
    idleConn: Count = 90


Modality = Literal["text", "audio", "image"]


class Capabilities(Strict):
    in_: Annotated[list[Modality], Field(alias="in")] = []
    out: list[Modality] = []
    tools: bool = False
    reranker: bool = False
    context: Annotated[int, Field(gt=0)] | None = None


class Model(Strict):
    cmd: Annotated[str, Field(min_length=1)]
    cmdStop: str = ""
    proxy: Annotated[str, Field(pattern=r"^http://")]
    aliases: list[str] = []
    env: list[Annotated[str, Field(pattern=r"^[A-Z_a-z][A-Z_a-z0-9]*=")]] = []
    checkEndpoint: Annotated[str, Field(pattern=r"^/|^none$")] = "/health"
    ttl: Annotated[int, Field(ge=-1)] = -1
    unloadTimeout: Count = 0
    unlisted: bool = False
    useModelName: str = ""
    name: str = ""
    description: str = ""
    concurrencyLimit: Count = 0
    timeouts: Timeouts = Timeouts()
    capabilities: Capabilities = Capabilities()


class Peer(Strict):
    proxy: Annotated[str, Field(pattern=r"^https?://[^/]+$")]
    models: Annotated[list[str], Field(min_length=1)]
    timeouts: Timeouts = Timeouts()


class Spillover(Strict):
    spillover: Annotated[int, Field(ge=1)] = 1


class Selector(Strict):
    strategy: Literal["warm", "pin", "spillover"]
    targets: Annotated[list[str], Field(min_length=1)]
    settings: Spillover = Spillover()


class Matrix(Strict):
    vars: dict[Annotated[str, Field(pattern=r"^[a-zA-Z0-9]{1,8}$")], str]
    evict_costs: dict[str, Annotated[int, Field(ge=1)]] = {}
    sets: Annotated[dict[str, Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Settings(Strict):
    matrix: Matrix


class Router(Strict):
    use: Literal["matrix"]
    settings: Settings


class Routing(Strict):
    router: Router


class Startup(Strict):
    preload: list[str]


class Hooks(Strict):
    on_startup: Startup


class Config(Strict):
    healthCheckTimeout: Annotated[int, Field(ge=15)] = 120
    includeAliasesInList: bool = False
    captureBuffer: Count = 5
    sendLoadingState: bool = False
    globalTTL: Count = 0
    apiKeys: list[Annotated[str, Field(pattern=r"^\$\{env\.[A-Z_]+\}$")]] = []
    models: dict[str, Model]
    peers: dict[str, Peer] = {}
    selectors: dict[str, Selector] = {}
    routing: Routing | None = None
    hooks: Hooks | None = None


def read(text: str) -> Config:
    """Return the configuration; AssertionError or ValidationError for one that llama-swap would not take as it is."""
    config = Config.model_validate(yaml.safe_load(text))
    macros = set(re.findall(r"\$\{([^}]*)\}", text))
    assert macros <= {"env.LABCTL_PYTHON", *(key[2:-1] for key in config.apiKeys)}, "a macro that is not resolved"
    aliases = [alias for model in config.models.values() for alias in model.aliases]
    names = [*config.models, *aliases, *config.selectors]
    assert len(set(names)) == len(names), "a name for two things"
    proxies = [model.proxy for model in config.models.values()]
    assert len(set(proxies)) == len(proxies), "a port for two models"
    targets = {*config.models, *aliases, *(f"{p}/{m}" for p, peer in config.peers.items() for m in peer.models)}
    for selector in config.selectors.values():
        assert set(selector.targets) <= targets
        assert selector.strategy != "warm" or set(selector.targets) <= {*config.models, *aliases}
    if config.routing:
        _matrix(config, config.routing.router.settings.matrix)
    assert set(config.hooks.on_startup.preload if config.hooks else ()) <= config.models.keys()
    return config


def _matrix(config: Config, matrix: Matrix) -> None:
    assert set(matrix.vars.values()) <= config.models.keys()
    assert matrix.evict_costs.keys() <= {*matrix.vars, *config.models}
    held = expansions(matrix.model_dump())
    for selector in config.selectors.values():
        local = frozenset(selector.targets) & frozenset(config.models)
        assert selector.strategy != "spillover" or any(local <= some for some in held), (
            "targets that never run together"
        )


def argument(model: Model, option: str) -> Any:
    """Return what stands behind an option of a model's command line; None where it is not there."""
    words = shlex.split(model.cmd)
    return words[words.index(option) + 1] if option in words else None
