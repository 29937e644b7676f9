"""``python -m labctl.hosts.supervise -c FILE``: supervisord that starts with no program.

A plain supervisord starts every ``autostart`` program at once. labctl adds them one by one, each when what it needs is
healthy: two model servers that measure one card's free memory at the same time would both get it wrong.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main(arguments: list[str]) -> None:
    """Become supervisord. Returns when it was told to shut down."""
    options: Any = importlib.import_module("supervisor.options").ServerOptions()
    options.realize(arguments, doc=__doc__)
    options.process_group_configs = []
    options.first, options.test = True, False
    importlib.import_module("supervisor.supervisord").go(options)
    options.close_httpservers()
    options.close_logger()


if __name__ == "__main__":
    main(sys.argv[1:])
