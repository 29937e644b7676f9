"""Starts labctl's gateway from the files beside this one, with the libraries of the Python that runs it."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the host may have any
    sys.exit(
        "the gateway needs Python 3.11 or newer, and this is {}.{}; lab.yaml names another one: "
        "`gateway: {{python: /path/to/python3}}`".format(*sys.version_info)
    )

try:
    from labctl.swap.__main__ import main
except ImportError as error:
    sys.exit(
        f"{error}; on Debian 13 and Ubuntu 24.04: apt install python3-aiohttp python3-httptools "
        "python3-prometheus-client python3-uvicorn python3-uvloop"
    )

sys.exit(main())
