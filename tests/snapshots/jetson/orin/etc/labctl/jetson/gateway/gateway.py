"""Starts labctl's gateway from the files beside this one, with the system's own libraries."""

import sys

try:
    from labctl.swap.__main__ import main
except ImportError as error:
    sys.exit(
        f"{error}; on Debian and Ubuntu: apt install python3-aiohttp python3-httptools python3-prometheus-client "
        "python3-uvicorn python3-uvloop"
    )

sys.exit(main())
