"""``labctl`` and ``python -m labctl``."""

from __future__ import annotations

import sys

from labctl.cli.funnel import run


def main() -> int:
    """Run labctl with the process's arguments and return its exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
