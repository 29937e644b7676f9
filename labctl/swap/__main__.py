"""``python -m labctl.swap --config gateway.json``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import uvicorn

from labctl.swap.app import App
from labctl.swap.config import ConfigError, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 2 when the configuration cannot be used."""
    parser = argparse.ArgumentParser(prog="labctl.swap", description="labctl's gateway")
    parser.add_argument("--config", required=True, help="the rendered gateway.json")
    parser.add_argument("--bind", help="address to serve at, in place of the file's")
    parser.add_argument("--port", type=int, help="port to serve at, in place of the file's")
    parser.add_argument("--check", action="store_true", help="read the configuration and end")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        config = read(options.config)
        app = App(config)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if not options.check:
        uvicorn.run(
            app,
            host=options.bind or config.bind,
            port=options.port or config.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=64 << 10,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
