"""Who may ask for what. Only digests of keys are kept; the file is read again when it changes: a key can be revoked."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from labctl.swap.asgi import Problem
from labctl.swap.config import ConfigError, Key, read_keys

MINUTE: Final = 60.0
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the file."""
EVERYBODY: Final = Key(name="everybody", sha256="", admin=True)
"""Who asks when no key is asked for."""

log = logging.getLogger("labctl.swap")


class Keys:
    """The keys of the configuration and of one file. Without any, everybody may do everything."""

    def __init__(self, fixed: Iterable[Key], path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._fixed = tuple(_hashed(key) for key in fixed)
        self._looked, self._stamp = -LOOK_EVERY, (0, 0, 0)
        self._keys: tuple[Key, ...] = ()
        self.busy: dict[str, int] = {}
        """Key's name → requests of it under way."""
        self._came: dict[str, deque[float]] = {}
        if path:
            self._begin()

    def who(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """Return whose key a request carries, None when it carries no valid one. Takes the same time for every key."""
        if not self._path and not self._fixed:
            return EVERYBODY
        self._refresh()
        value = headers.get(b"authorization", b"")
        kind, _, token = value.partition(b" ")
        if kind.lower() != b"bearer":
            token = headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(token.strip()).hexdigest()
        found = None
        for key in (*self._fixed, *self._keys):
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def enter(self, key: Key) -> Problem | None:
        """Count a request of a key; return what it is answered when it has as many as it may."""
        busy = self.busy.get(key.name, 0)
        if key.parallel is not None and busy >= key.parallel:
            return _too_many(f"key {key.name!r} has {key.parallel} requests under way, as many as it may", 1)
        if key.per_minute is not None:
            came, now = self._came.setdefault(key.name, deque()), self._clock()
            while came and came[0] <= now - MINUTE:
                came.popleft()
            if len(came) >= key.per_minute:
                message = f"key {key.name!r} has made {key.per_minute} requests within a minute, as many as it may"
                return _too_many(message, came[0] + MINUTE - now)
            came.append(now)
        self.busy[key.name] = busy + 1
        return None

    def leave(self, key: Key) -> None:
        """A request of a key is over."""
        self.busy[key.name] = max(0, self.busy.get(key.name, 0) - 1)

    def _begin(self) -> None:
        """Read the file for the first time. One that is not there yet opens nothing to anybody."""
        if Path(self._path).exists():
            self._read()
        else:
            log.warning("keys: there is no %s yet: nobody is let in by it", self._path)

    def _refresh(self) -> None:
        if not self._path:
            return
        now = self._clock()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        try:
            found = Path(self._path).stat()
        except OSError:
            self._keys, self._stamp = (), (0, 0, 0)
            return
        if _stamp(found) != self._stamp:
            try:
                self._read()
            except ConfigError as error:
                log.error("the keys stay as they were: %s", error)

    def _read(self) -> None:
        path = Path(self._path)
        try:
            found, text = path.stat(), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"keys: {path}: {getattr(error, 'strerror', None) or error}"
            raise ConfigError(message) from error
        self._keys, self._stamp = read_keys(text), _stamp(found)


def _too_many(message: str, seconds: float) -> Problem:
    return Problem(429, message, kind="rate_limit_error", code="too_many_requests", retry_after=seconds)


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    """Return what tells one state of a file from the next, be it written over or put in the place of another."""
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _hashed(key: Key) -> Key:
    """Return a key without its value: the variable that holds it is read once and forgotten."""
    if not key.env:
        return key
    value = os.environ.pop(key.env, "")
    if not value:
        message = f"key {key.name!r}: the variable {key.env} is empty"
        raise ConfigError(message)
    return replace(key, sha256=hashlib.sha256(value.encode()).hexdigest())
