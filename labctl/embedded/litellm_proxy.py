"""``python -m labctl.embedded.litellm_proxy``: LiteLLM's proxy with its own command line, kept quiet and offline.

Before LiteLLM is imported, its price list is set to the installed one (else every start tries to download it), its
telemetry is switched off and its banner is silenced. Everything else is LiteLLM's own ``litellm`` command.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_DONT_SHOW_FEEDBACK_BOX": "true",
    "NO_COLOR": "1",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proxy until it is told to stop; return the exit status."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    missing = [name for name in ("litellm", "fastapi", "prisma") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f"error: {', '.join(missing)} not installed; run: pip install 'labctl[quickstart]'\n")
        return 1
    banner: Any = importlib.import_module("litellm.proxy.common_utils.banner")
    banner.show_banner = lambda: None
    cli: Any = importlib.import_module("litellm.proxy.proxy_cli")
    # where port 4000 is taken, LiteLLM would serve at a random one that nobody asks: better it says so and ends
    cli.ProxyInitializationHelpers.is_port_in_use = staticmethod(lambda _port: False)
    importlib.import_module("litellm.proxy.proxy_server")
    # what is loaded from here on is the lab's own: nothing is to appear beside its files
    sys.dont_write_bytecode = True
    cli.run_server.main(
        args=list(sys.argv[1:] if arguments is None else arguments), prog_name="litellm", standalone_mode=True
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
