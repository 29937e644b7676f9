"""``python -m labctl.swap --config gateway.json``."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from typing import Final

import uvicorn

from labctl.swap.app import App
from labctl.swap.config import ConfigError, read

GRACE: Final = 5
"""Seconds for requests that are being answered when the gateway is told to end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 2 when the configuration cannot be used."""
    parser = argparse.ArgumentParser(prog="labctl.swap", description="labctl's gateway")
    parser.add_argument("--config", required=True, help="the rendered gateway.json")
    parser.add_argument("--bind", help="address to serve at, in place of the file's")
    parser.add_argument("--port", type=int, help="port to serve at, in place of the file's")
    parser.add_argument("--check", action="store_true", help="read the configuration and end")
    options = parser.parse_args(arguments)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # nobody reads who wrote a line
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        config = read(options.config)
        app = App(config)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0 if options.check else _serve(app, options.bind or config.bind, options.port or config.port)


def _serve(app: App, bind: str, port: int) -> int:
    """Serve until told to stop."""
    server = _Server(
        uvicorn.Config(
            app,
            host=bind,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            h11_max_incomplete_event_size=64 << 10,
        )
    )
    server.run()
    return 0 if server.started else 3


class _Server(uvicorn.Server):
    """Lets requests end that are being answered; whoever waits for a server is told at once to come again."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.turn_away()  # type: ignore[union-attr]
        await super().shutdown(sockets)


if __name__ == "__main__":
    sys.exit(main())
