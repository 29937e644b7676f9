"""Runs as a task once LiteLLM answers: gives the lab's services their virtual keys. May run again at any time.

Reads GATEWAY_URL, LITELLM_MASTER_KEY and the keys themselves: ``LABCTL_KEY_MODELS_…`` and ``LABCTL_KEY_METRICS_…``.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PREFIX = "LABCTL_KEY_"
ROUTES = {"MODELS": ["llm_api_routes"], "METRICS": ["/metrics", "/metrics/"]}
PATIENCE = 300
"""Seconds to wait for the gateway."""


def ask(path: str, body: object = None) -> tuple[int, str]:
    """Ask the gateway as its master; return status and text, 0 when it does not answer."""
    request = urllib.request.Request(
        os.environ["GATEWAY_URL"] + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["LITELLM_MASTER_KEY"], "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def register(alias: str, key: str, routes: list[str]) -> str:
    """Make a key known, or renew what it may; return what went wrong, "" for nothing."""
    wanted = {"key": key, "key_alias": alias, "allowed_routes": routes}
    known, _ = ask("/key/info?" + urllib.parse.urlencode({"key": key}))
    if known == 200:
        status, text = ask("/key/update", wanted)
    else:
        ask("/key/delete", {"key_aliases": [alias]})
        status, text = ask("/key/generate", wanted)
    return "" if status == 200 else f"{alias}: {status} {text.replace(key, '***')[:500]}"


def main() -> int:
    """Wait for the gateway, then register every key."""
    deadline = time.monotonic() + PATIENCE
    while ask("/health/readiness")[0] != 200:
        if time.monotonic() > deadline:
            print("the gateway is not ready", file=sys.stderr)
            return 1
        time.sleep(2)
    problems = []
    for name, value in sorted(os.environ.items()):
        if name.startswith(PREFIX):
            what, _, client = name.removeprefix(PREFIX).partition("_")
            problem = register("labctl-" + client.lower().replace("_", "-"), value, ROUTES[what])
            problems += [problem] if problem else []
            print(f"{client.lower()}: {'failed' if problem else 'may ask for ' + what.lower()}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
