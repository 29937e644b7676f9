"""A real Prometheus and a real Alertmanager on this machine, looking at a real LiteLLM and real llama.cpp servers.

Every name of a figure in rules and dashboards is one that these programs really print.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from labctl.dotenv import parse_dotenv
from labctl.services.dashboards import ENGINES, GATEWAY, Panel
from tests.e2e.place import Place, ask, chat, place, until
from tests.embedded.servers import free_port
from tests.services import labs

pytestmark = pytest.mark.slow
pytest.importorskip("litellm", reason="LiteLLM is not installed: no gateway to look at")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: LiteLLM shows no figures")

CHAT, EMBED, GATE, LOOK, TELL = (free_port() for _ in range(5))
LAB = f"""
lab: quickstart
hosts:
  here: {{target: local}}
models:
  alpha: {{tiny: {{says: "Hello! I am alpha."}}}}
  letters: {{tiny: {{dimensions: 64}}}}
deployments:
  alpha: {{model: alpha, engine: llama.cpp, flavour: embedded, on: {{host: here}}, port: {CHAT}, context: 512,
    serves: [chat]}}
  letters: {{model: letters, engine: llama.cpp, flavour: embedded, on: {{host: here}}, port: {EMBED}, context: 512,
    task: embed, serves: [embed]}}
gateway: {{engine: litellm, host: here, port: {GATE}}}
services:
  prometheus: {{host: here, port: {LOOK}, interval: 1 s}}
  alertmanager: {{host: here, port: {TELL}}}
secrets: {{from: environment, generate: [LITELLM_MASTER_KEY, PROMETHEUS_GATEWAY_KEY]}}
"""


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    labs.program("prometheus", "prometheus")
    labs.program("prometheus-alertmanager", "prometheus-alertmanager")
    with place(LAB) as made:
        made.ok("apply", "--yes")
        for _ in range(3):
            ask(f"http://127.0.0.1:{GATE}", keys(made)["LITELLM_MASTER_KEY"], "/v1/chat/completions", chat("chat"))
        yield made


def keys(where: Place) -> dict[str, str]:
    return dict(parse_dotenv(where.key_file.read_text()))


def prometheus(path: str) -> Any:
    return httpx.get(f"http://127.0.0.1:{LOOK}/api/v1/{path}", timeout=10).json()["data"]


def health() -> dict[str, str]:
    """Return how each target is: workload → ``up``, ``down`` or ``unknown``."""
    return {t["labels"]["workload"]: t["health"] for t in prometheus("targets")["activeTargets"]}


def series() -> dict[str, set[str]]:
    """Return the names of all figures that were collected, each with its labels."""
    found: dict[str, set[str]] = {}
    for one in prometheus("series?match[]={__name__=~'.%2B'}"):
        found.setdefault(one["__name__"], set()).update(one)
    return found


def test_everything_is_collected(here: Place) -> None:
    workloads = ("alertmanager", "alpha", "gateway", "letters", "prometheus")
    until(lambda: health() == dict.fromkeys(workloads, "up"), 30)
    assert not here.changes()


def test_rules_are_evaluated_and_nothing_alarms(here: Place) -> None:
    assert here.programs()
    until(lambda: all(r["health"] == "ok" for g in prometheus("rules")["groups"] for r in g["rules"]), 60)
    # On a busy machine a first scrape of the gateway may be late: that is pending for a moment, and gone with the next.
    until(lambda: prometheus("alerts")["alerts"] == [], 60)
    assert prometheus("alertmanagers")["activeAlertmanagers"] == [{"url": f"http://127.0.0.1:{TELL}/api/v2/alerts"}]


@pytest.mark.parametrize("panel", [*GATEWAY, *ENGINES["llama.cpp"]], ids=lambda p: p.title)
def test_dashboards_ask_for_figures_that_exist(here: Place, panel: Panel) -> None:
    assert here.programs()
    for query, _ in panel.lines:
        names = set(re.findall(r"\b(?:litellm|llamacpp)[a-z_:]*", query))
        assert names
        until(lambda names=names: names <= set(series()) | {"litellm_proxy_failed_requests_metric_total"}, 20)
        known = series()
        for labels in re.findall(r"by \(([a-z_, ]+)\)", query):
            wanted = {label.strip() for label in labels.split(",")}
            assert all(wanted <= known[name] for name in names if name in known), (query, known)


def test_the_key_for_figures_opens_nothing_else(here: Place) -> None:
    gateway, key = f"http://127.0.0.1:{GATE}", keys(here)["PROMETHEUS_GATEWAY_KEY"]
    assert ask(gateway, key, "/metrics/").status_code == 200
    assert ask(gateway, key, "/v1/models").status_code == 401
    assert ask(gateway, key, "/v1/chat/completions", chat("chat")).status_code == 401
    assert ask(gateway, None, "/metrics/").status_code == 401
    stored = here.root / "prometheus"
    assert key not in "".join(path.read_text() for path in stored.iterdir())


def test_a_server_that_dies_is_an_alarm_that_is_told(here: Place) -> None:
    here.supervisor()("stopProcess", "letters")
    until(lambda: health()["letters"] == "down", 20)
    until(lambda: [a["labels"]["workload"] for a in prometheus("alerts")["alerts"]] == ["letters"], 20)
    (alert,) = prometheus("alerts")["alerts"]
    assert (alert["labels"]["alertname"], alert["state"]) == ("TargetDown", "pending")
    assert json.dumps(alert["annotations"]) == '{"summary": "letters on here does not answer"}'


def test_destroyed_with_its_data_nothing_is_left(here: Place) -> None:
    assert (here.root / "prometheus-data").is_dir()
    here.ok("destroy", "--yes", "--data")
    assert here.files() == []
