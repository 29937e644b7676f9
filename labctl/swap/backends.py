"""Starting, stopping and asking servers: what takes time. Problems are returned as sentences, not raised."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp

from labctl.swap.config import Backend
from labctl.swap.listener import listener

POLL: Final = 0.1
"""Seconds between two looks at a server that is starting."""
HEALTH_TIMEOUT: Final = 5.0


class Run(StrEnum):
    """What a manager says about a server."""

    RUNNING = "running"
    STOPPED = "stopped"
    RETRYING = "retrying"
    """It ended by itself, and its manager will start it again."""


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

    async def words(self, id: str) -> str:
        """Return the last lines of its log, "" when nobody can say."""
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
            if (taken := await _taken(backend)) and await driver.state(backend.driver.id) is Run.STOPPED:
                return taken
            await driver.start(backend.driver.id)
        except DriverError as error:
            return str(error)
        return ""

    async def wait_ready(self, backend: Backend, *, starting: bool = True) -> str:
        """Wait until a server is healthy; return why it is not, early when it has ended.

        One that ran before (not ``starting``) may be brought back by its manager: that is waited for.
        """
        ended = {Run.STOPPED, Run.RETRYING} if starting else {Run.STOPPED}
        deadline = asyncio.get_running_loop().time() + backend.startup
        while asyncio.get_running_loop().time() < deadline:
            healthy = await self.healthy(backend)
            if backend.driver.kind != "none" and await self._state(backend) in ended:
                return "it ended while it was starting; see its log"
            if healthy:
                return ""
            await asyncio.sleep(POLL)
        return f"it was not ready after {backend.startup:g} s; see its log"

    async def stop(self, backend: Backend) -> str:
        """Stop a server and make sure that it has ended; return why it has not."""
        driver = self._driver(backend)
        if driver is None:
            return ""
        refused = ""
        try:
            await driver.stop(backend.driver.id)
        except DriverError as error:
            refused = str(error)  # a unit that is not there cannot be stopped, and does not run
        try:
            ended = await driver.state(backend.driver.id) is Run.STOPPED
        except DriverError as error:
            return refused or str(error)
        return "" if ended else refused or "it still runs"

    async def words(self, backend: Backend) -> str:
        """Return what a server said last, "" when nobody can say."""
        driver = self._driver(backend)
        return "" if driver is None else await driver.words(backend.driver.id)

    async def healthy(self, backend: Backend) -> bool:
        """Ask its health path once."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
        try:
            async with self._session.get(backend.url + backend.health, timeout=timeout) as response:
                return 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


async def _taken(backend: Backend) -> str:
    """Return who listens at a server's port, in words; "" for nobody. A container has a name, and ports of its own."""
    address = urlsplit(backend.url)
    try:
        ipaddress.ip_address(address.hostname or "")
        _, writer = await asyncio.wait_for(asyncio.open_connection(address.hostname, address.port), HEALTH_TIMEOUT)
    except (ValueError, OSError, TimeoutError):
        return ""
    writer.close()
    who = await asyncio.to_thread(listener, address.port or 80)
    return f"{who or 'another program'} has its port {address.port}"
