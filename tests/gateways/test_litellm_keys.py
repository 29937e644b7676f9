"""The task that registers the services' keys, against a gateway that notes what it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from labctl.gateways.litellm.tasks import shipped

MASTER = "sk-master-1234"


@dataclass
class Gateway:
    """What LiteLLM's management answers, as far as the task asks (proxy/management_endpoints)."""

    url: str = ""
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuses: bool = False
    unready: int = 0

    def answer(self, path: str, key: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        self.asked.append(path)
        if path == "/health/readiness":
            self.unready -= 1
            return (503 if self.unready >= 0 else 200), {}
        if key != MASTER:
            return 401, {}
        if path == "/key/info":
            return 404, {}
        if body is None or self.refuses:
            return 400, {"error": f"not {body and body.get('key')}"}
        if path == "/key/delete":
            self.known = {k: v for k, v in self.known.items() if v["key_alias"] not in body["key_aliases"]}
            return 200, {}
        self.known[body["key"]] = body
        return 200, {}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            parts = urlsplit(self.path)
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            asked = parse_qs(parts.query).get("key", [""])[0]
            status, value = made.answer(parts.path, key, body)
            status = 200 if parts.path == "/key/info" and asked in made.known and key == MASTER else status
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        do_GET = do_POST = _do  # noqa: N815 - the standard library's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def run(gateway: Gateway, master: str = MASTER, **keys: str) -> subprocess.CompletedProcess[str]:
    script = Path(str(files("labctl.gateways.litellm"))) / "shipped/labctl_keys.py"
    env = {"GATEWAY_URL": gateway.url, "LITELLM_MASTER_KEY": master, **keys}
    return subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False, timeout=60)


PAGE, FIGURES = "sk-page-0123456789abcdef", "sk-figures-0123456789abcdef"
KEYS = {"LABCTL_KEY_MODELS_OPEN_WEBUI": PAGE, "LABCTL_KEY_METRICS_PROMETHEUS": FIGURES}


def test_each_service_gets_its_key_for_what_it_does(gateway: Gateway) -> None:
    done = run(gateway, **KEYS)
    assert (done.returncode, done.stderr) == (0, "")
    assert gateway.known == {
        PAGE: {"key": PAGE, "key_alias": "labctl-open-webui", "allowed_routes": ["llm_api_routes"]},
        FIGURES: {"key": FIGURES, "key_alias": "labctl-prometheus", "allowed_routes": ["/metrics", "/metrics/"]},
    }
    assert PAGE not in done.stdout


def test_again_it_only_renews_and_a_new_key_takes_the_place_of_the_old(gateway: Gateway) -> None:
    assert run(gateway, **KEYS).returncode == 0
    gateway.asked.clear()
    assert run(gateway, **KEYS).returncode == 0
    assert "/key/generate" not in gateway.asked
    assert run(gateway, **{**KEYS, "LABCTL_KEY_MODELS_OPEN_WEBUI": "sk-another-0123456789"}).returncode == 0
    assert set(gateway.known) == {"sk-another-0123456789", FIGURES}


def test_it_waits_for_the_gateway(gateway: Gateway) -> None:
    gateway.unready = 1
    assert run(gateway, **KEYS).returncode == 0
    assert gateway.asked[:3] == ["/health/readiness", "/health/readiness", "/key/info"]


@pytest.mark.parametrize("how", ["refused", "wrong master key"])
def test_what_went_wrong_is_said_without_the_key(gateway: Gateway, how: str) -> None:
    gateway.refuses = how == "refused"
    done = run(gateway, master=MASTER if gateway.refuses else "sk-wrong", **KEYS)
    assert done.returncode == 1
    assert "labctl-open-webui: 40" in done.stderr
    assert PAGE not in done.stdout + done.stderr


@pytest.mark.slow
def test_litellm_knows_the_switch_for_tables() -> None:
    cli = pytest.importorskip("litellm.proxy.proxy_cli", reason="LiteLLM is not installed", exc_type=ImportError)
    options = {name for option in cli.run_server.params for name in option.opts}
    assert "--skip_server_startup" in options


@pytest.mark.slow
def test_litellm_knows_the_routes_that_keys_are_for() -> None:
    types = pytest.importorskip("litellm.proxy._types", reason="LiteLLM is not installed", exc_type=ImportError)
    assert "/v1/chat/completions" in types.LiteLLMRoutes["llm_api_routes"].value


def test_scripts_are_python_for_litellms_image() -> None:
    for name in ("labctl_keys", "labctl_auth"):
        compile(shipped(name).content, name, "exec")
