"""Starting, stopping and asking servers: what takes time. Problems are returned as sentences, not raised."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, Protocol

import aiohttp

from labctl.swap.config import Backend

POLL: Final = 0.1
"""Seconds between two looks at a server that is starting."""
HEALTH_TIMEOUT: Final = 5.0


class Run(StrEnum):
    """What a manager says about a server."""

    RUNNING = "running"
    STOPPED = "stopped"


class DriverError(Exception):
    """A manager did not do what it was asked; the message says why, in words."""


class Driver(Protocol):
    """One kind of manager."""

    async def start(self, id: str) -> None:
        """Start; return when it was asked. DriverError when it refuses."""
        ...

    async def stop(self, id: str) -> None:
        """Stop; return when it has ended. DriverError when it has not."""
        ...

    async def state(self, id: str) -> Run:
        """Return what it does now. DriverError when nobody can say."""
        ...


class Control:
    """The servers of one gateway, through their drivers."""

    def __init__(self, session: aiohttp.ClientSession, drivers: Mapping[tuple[str, str], Driver]) -> None:
        self._session, self._drivers = session, drivers

    def _driver(self, backend: Backend) -> Driver | None:
        return self._drivers.get((backend.driver.kind, backend.driver.at))

    def patience_hint(self, queued: int) -> float:
        """Return the seconds after which somebody who was turned away may try again."""
        return float(min(60, 1 + queued // 10))

    async def survey(self, backends: Iterable[Backend]) -> Mapping[str, Run]:
        """Return what runs, by name; those that nobody can tell about are left out."""
        asked = [b for b in backends if self._driver(b) is not None]
        found = await asyncio.gather(*(self._state(b) for b in asked))
        return {b.name: run for b, run in zip(asked, found, strict=True) if run is not None}

    async def _state(self, backend: Backend) -> Run | None:
        driver = self._driver(backend)
        try:
            return None if driver is None else await driver.state(backend.driver.id)
        except DriverError:
            return None

    async def start(self, backend: Backend) -> str:
        """Have a server started; return why that failed."""
        driver = self._driver(backend)
        if driver is None:
            return ""
        try:
            await driver.start(backend.driver.id)
        except DriverError as error:
            return str(error)
        return ""

    async def wait_ready(self, backend: Backend) -> str:
        """Wait until a server is healthy; return why it is not, early when it has ended."""
        deadline = asyncio.get_running_loop().time() + backend.startup
        while asyncio.get_running_loop().time() < deadline:
            if await self.healthy(backend):
                return ""
            if backend.driver.kind != "none" and await self._state(backend) is Run.STOPPED:
                return "it ended while it was starting; see its log"
            await asyncio.sleep(POLL)
        return f"it was not ready after {backend.startup:g} s; see its log"

    async def stop(self, backend: Backend) -> str:
        """Stop a server and make sure that it has ended; return why it has not."""
        driver = self._driver(backend)
        if driver is None:
            return ""
        try:
            await driver.stop(backend.driver.id)
            if await driver.state(backend.driver.id) is not Run.STOPPED:
                return "it still runs"
        except DriverError as error:
            return str(error)
        return ""

    async def alive(self, backend: Backend) -> bool:
        """Whether a server still runs, or, where nobody starts it, still answers."""
        state = await self._state(backend)
        return await self.healthy(backend) if state is None else state is Run.RUNNING

    async def healthy(self, backend: Backend) -> bool:
        """Ask its health path once."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
        try:
            async with self._session.get(backend.url + backend.health, timeout=timeout) as response:
                return 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
