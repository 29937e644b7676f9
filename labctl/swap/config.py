"""The rendered file that says what the gateway serves, as values. JSON; unknown keys are errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Final, TypeVar

FORMAT: Final = 1
DRIVERS: Final = ("docker", "none", "supervisor", "systemd", "systemd-user")
T = TypeVar("T")


class ConfigError(ValueError):
    """The file cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """How a server is started and stopped.

    Attributes:
        kind: ``docker``, ``systemd``, ``systemd-user``, ``supervisor`` or ``none`` (it always runs).
        id: how that manager calls it: a container, a unit, a program.
        at: where the manager is reached: a socket's path; "" for its usual place.
    """

    kind: str = "none"
    id: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One model server.

    Attributes:
        name: its name in the lab.
        url: where it is reached, without ``/v1``.
        serves: public names; ``model``: the name that the server itself expects.
        health: path that answers 2xx when it is ready.
        memory: card → bytes that it takes; the cards are keys of ``Config.cards``.
        slots: requests that it works on at a time.
        startup: seconds that it may take to become ready.
        pinned: loaded at start and never evicted; ``preload``: loaded at start.
        ttl: seconds without a request after which it is stopped.
        exclusive: groups of which only one member is resident.
        task: ``chat``, ``embed`` …; ``vision``: takes images. For the dashboard.
    """

    name: str
    url: str
    serves: tuple[str, ...] = ()
    model: str = ""
    health: str = "/health"
    memory: Mapping[str, int] = field(default_factory=dict)
    slots: int = 1
    startup: float = 60.0
    timeout: float = 600.0
    pinned: bool = False
    preload: bool = False
    ttl: float | None = None
    exclusive: tuple[str, ...] = ()
    task: str = "chat"
    vision: bool = False
    driver: Driver = Driver()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Who may ask. Only the SHA-256 of the bearer key is kept.

    Attributes:
        name: shown in logs and metrics.
        sha256: of the key, in hex; env: or the variable that holds the key itself.
        only: ``metrics`` for a key that opens figures and nothing else, ``models`` for one that opens no figures.
        models: public names that it may use; empty for all.
        parallel: requests of it at a time, waiting ones among them; per_minute: within any minute. None for no limit.
        admin: may start, stop and pin servers.
    """

    name: str
    sha256: str = ""
    env: str = ""
    only: str = ""
    models: tuple[str, ...] = ()
    parallel: int | None = None
    per_minute: int | None = None
    admin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the gateway is told.

    Attributes:
        bind/port: where it listens.
        cards: card → bytes that all resident servers together may take; ``labels``: card → what people call it.
        queue: requests that may wait; one more is answered 503.
        patience: seconds that a waiting request may be overtaken.
        longest_wait: seconds after which a request that still waits is answered 503.
        min_residency: seconds for which a fresh server is not evicted.
        keys: who may ask; keys_file: a file of more, read again when it changes. Without any, nobody is asked.
        origins: web pages that may ask from a browser, as ``https://chat.example``; ``*`` for all.
        log_prompts: whether the dashboard's request list shows the first words of a prompt.
        otlp: URL of a collector of traces (OTLP over HTTP), without ``/v1/traces``; "" for none.
        body_limit: bytes of a request's body.
    """

    backends: tuple[Backend, ...]
    cards: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    bind: str = "127.0.0.1"
    port: int = 8888
    queue: int = 50
    patience: float = 20.0
    longest_wait: float = 600.0
    min_residency: float = 0.0
    keys: tuple[Key, ...] = ()
    keys_file: str = ""
    origins: tuple[str, ...] = ()
    log_prompts: bool = False
    otlp: str = ""
    body_limit: int = 64 << 20
    format: int = FORMAT

    def routes(self) -> dict[str, tuple[str, ...]]:
        """Return public name → servers that answer to it, in the order of the file."""
        found: dict[str, list[str]] = {}
        for backend in self.backends:
            for name in backend.serves or (backend.name,):
                found.setdefault(name, []).append(backend.name)
        return {name: tuple(servers) for name, servers in found.items()}


def read(path: str) -> Config:
    """Read the file; ConfigError when it cannot be used."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path}: {error}"
        raise ConfigError(message) from error
    return from_value(value)


def from_value(value: Any) -> Config:
    """Return the configuration that a JSON value stands for; ConfigError when it stands for none."""
    raw = _tupled(_mapping(value, "the file"), "the file", "origins")
    if raw.get("format", FORMAT) != FORMAT:
        message = f"format {raw['format']} is not known; this gateway reads format {FORMAT}"
        raise ConfigError(message)
    raw["keys"] = tuple(_key(item, i) for i, item in enumerate(_list(raw.get("keys", []), "`keys`")))
    if "backends" in raw:
        raw["backends"] = tuple(_backend(item, i) for i, item in enumerate(_list(raw["backends"], "`backends`")))
    config = _make(Config, raw, "the file")
    names = [b.name for b in config.backends]
    for name in {n for n in names if names.count(n) > 1}:
        message = f"two backends are called {name!r}"
        raise ConfigError(message)
    for backend in config.backends:
        for card in backend.memory.keys() - config.cards.keys():
            message = f"backend {backend.name!r}: there is no card {card!r}"
            raise ConfigError(message)
    return config


def read_keys(text: str) -> tuple[Key, ...]:
    """Return the keys of a keys file: a JSON list of objects, each with its digest. ConfigError when it is none."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"keys: {error}"
        raise ConfigError(message) from error
    keys = tuple(_key(item, i) for i, item in enumerate(_list(items, "the file of keys")))
    for i, key in enumerate(keys):
        if not key.sha256:
            message = f"key {i}: `sha256` is missing"
            raise ConfigError(message)
    return keys


def _key(item: Any, index: int) -> Key:
    where = f"key {index}"
    key = _make(Key, _tupled(_mapping(item, where), where, "models"), where)
    if key.sha256 and not _DIGEST.fullmatch(key.sha256):
        message = f"{where}: `sha256` has to be 64 hexadecimal digits in lower case"
        raise ConfigError(message)
    return key


def _backend(item: Any, index: int) -> Backend:
    where = f"backend {index}"
    raw = _tupled(_mapping(item, where), where, "serves", "exclusive")
    driver = raw["driver"] = _make(Driver, _mapping(raw.get("driver", {}), f"{where}: `driver`"), f"{where}: `driver`")
    if driver.kind not in DRIVERS:
        message = f"{where}: there is no driver {driver.kind!r}; there are {', '.join(DRIVERS)}"
        raise ConfigError(message)
    backend = _make(Backend, raw, where)
    if backend.slots < 1:
        message = f"{where}: `slots` has to be 1 or more"
        raise ConfigError(message)
    return backend


def _tupled(raw: Mapping[str, Any], where: str, *names: str) -> dict[str, Any]:
    return {k: tuple(_list(v, f"{where}: `{k}`")) if k in names else v for k, v in raw.items()}


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        message = f"{where} is not a list"
        raise ConfigError(message)
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        message = f"{where} is not a mapping"
        raise ConfigError(message)
    return value


def _make(kind: type[T], raw: Mapping[str, Any], where: str) -> T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for name in sorted(raw.keys() - known.keys()):
        message = f"{where}: unknown key `{name}`"
        raise ConfigError(message)
    for name, f in known.items():
        if name not in raw and f.default is MISSING and f.default_factory is MISSING:
            message = f"{where}: `{name}` is missing"
            raise ConfigError(message)
        if name in raw and (wrong := _wrong(raw[name], str(f.type))):
            message = f"{where}: `{name}` {wrong}"
            raise ConfigError(message)
    return kind(**raw)


def _wrong(value: Any, annotation: str) -> str:
    """Return what is wrong with a value whose field is annotated so; annotations are texts in this module."""
    types, words = _TYPES.get(annotation, ((), ""))
    if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
        return f"has to be {words}"
    inner, words = _INNER.get(annotation, ((), ""))
    values = value.values() if isinstance(value, dict) else value
    if inner and not all(isinstance(v, inner) and not isinstance(v, bool) for v in values):
        return f"has to hold {words} only"
    return ""


_DIGEST: Final = re.compile("[0-9a-f]{64}")
_TYPES: Final = MappingProxyType(
    {
        "str": ((str,), "a text"),
        "int": ((int,), "a whole number"),
        "float": ((int, float), "a number"),
        "bool": ((bool,), "true or false"),
        "int | None": ((int, NoneType), "a whole number or null"),
        "float | None": ((int, float, NoneType), "a number or null"),
        "Mapping[str, int]": ((dict,), "a mapping"),
        "Mapping[str, str]": ((dict,), "a mapping"),
    }
)
_INNER: Final = MappingProxyType(
    {
        "tuple[str, ...]": ((str,), "texts"),
        "Mapping[str, int]": ((int,), "whole numbers"),
        "Mapping[str, str]": ((str,), "texts"),
    }
)
