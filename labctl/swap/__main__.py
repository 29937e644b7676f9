"""``python -m labctl.swap --config gateway.json``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from labctl.swap.app import App
from labctl.swap.config import ConfigError, read
from labctl.swap.serving import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 2 when the configuration cannot be used."""
    parser = argparse.ArgumentParser(prog="labctl.swap", description="labctl's gateway")
    parser.add_argument("--config", required=True, help="the rendered gateway.json")
    parser.add_argument("--bind", help="address to serve at, in place of the file's")
    parser.add_argument("--port", type=int, help="port to serve at, in place of the file's")
    parser.add_argument("--keys", help="a file of more keys, in place of the file's: read again when it changes")
    parser.add_argument("--check", action="store_true", help="read the configuration and end")
    options = parser.parse_args(arguments)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # nobody reads who wrote a line
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        config = read(options.config)
        if options.keys:
            config = replace(config, keys_file=options.keys)
        app = App(config)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if options.check:
        return 0
    signal.signal(signal.SIGTERM, _end)  # uvicorn sends itself the signal again when all is done: that is no failure
    return 0 if serve(app, options.bind or config.bind, options.port or config.port) else 3


def _end(_signal: int, _frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
