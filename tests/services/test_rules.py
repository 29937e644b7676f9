"""Prometheus' and Alertmanager's own checks of everything that is rendered for them, and what the alerts say when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from labctl.placed import CardBudget, Scrape
from labctl.quantity import GIB
from labctl.services.rules import CARD, RECORDS, Limits, rules
from tests.examples.labs import NAMES, example
from tests.services import labs

PROMTOOL = ("promtool", "prometheus")
AMTOOL = ("amtool", "prometheus-alertmanager")
KINDS = ("nvidia-smi", "dcgm", "amd-gpu", "litellm", "llama.cpp", "vllm")


def scrape(kind: str) -> Scrape:
    return Scrape(kind=kind, workload="w", host="ash", address="a:1", path="/metrics")


def every_rule() -> dict[str, Any]:
    budget = CardBudget(host="ash", planned=20 * GIB, total=24 * GIB)
    return rules([scrape(kind) for kind in KINDS], [budget], Limits())


@pytest.mark.parametrize(
    "keys",
    [{}, {"retention": "90 d", "storage": "1 TiB"}, {"interval": "5 s"}, {"gpus": False}],
    ids=["defaults", "long", "often", "no-cards"],
)
def test_prometheus_accepts_its_files(keys: dict[str, Any], tmp_path: Path) -> None:
    promtool = labs.program(*PROMTOOL)
    found = labs.lab({"monitoring": {"host": "box", **keys}})
    folder = labs.laid(found, "prometheus", tmp_path)
    labs.accepted(promtool, "check", "config", "--syntax-only", str(folder / "prometheus.yml"))
    labs.accepted(promtool, "check", "rules", str(folder / "rules.yml"))


def test_prometheus_would_notice_a_wrong_key(tmp_path: Path) -> None:
    promtool = labs.program(*PROMTOOL)
    config = labs.laid(labs.lab({"prometheus": {"host": "box"}}), "prometheus", tmp_path) / "prometheus.yml"
    config.write_text(config.read_text().replace("scrape_interval", "scrape_intervall"))
    with pytest.raises(AssertionError, match="scrape_intervall not found"):
        labs.accepted(promtool, "check", "config", "--syntax-only", str(config))


@pytest.mark.parametrize(
    "keys", [{}, {"slack": "SLACK_URL"}, {"webhook": "HOOK_URL"}], ids=["nobody", "slack", "webhook"]
)
def test_alertmanager_accepts_its_file(keys: dict[str, str], tmp_path: Path) -> None:
    amtool = labs.program(*AMTOOL)
    found = labs.lab({"monitoring": {"host": "box", **keys}})
    config = labs.laid(found, "alertmanager", tmp_path) / "alertmanager.yml"
    # url_file of a webhook came with 0.26, and Debian 12 has 0.25: there its place is checked with a URL
    config.write_text(config.read_text().replace("url_file: /dev/shm/labctl-test-alertmanager", "url: http://hook"))
    if "slack" in keys:
        config.write_text(config.read_text().replace("api_url: http://hook", "api_url_file: /dev/shm/x"))
    labs.accepted(amtool, "check-config", str(config))


def test_the_hook_is_never_in_a_file() -> None:
    found = labs.lab({"monitoring": {"host": "box", "webhook": "HOOK_URL"}})
    config = yaml.safe_load(labs.file(found, "alertmanager", "alertmanager.yml").content)
    (hook,) = config["receivers"][0]["webhook_configs"]
    assert hook["url_file"] == "/dev/shm/labctl-test-alertmanager"
    assert "HOOK_URL" in str(labs.of(found, "alertmanager").env["ALERT_URL"])


@pytest.mark.parametrize("name", NAMES)
def test_prometheus_accepts_what_examples_render(name: str, tmp_path: Path) -> None:
    promtool = labs.program(*PROMTOOL)
    rendered = example(name).need_rendered()
    for workload in [w for w in rendered.workloads if w.metrics and w.metrics.kind == "prometheus"]:
        folder = labs.laid(rendered, workload.name, tmp_path)
        labs.accepted(promtool, "check", "config", "--syntax-only", str(folder / "prometheus.yml"))
        labs.accepted(promtool, "check", "rules", str(folder / "rules.yml"))


TESTS: dict[str, Any] = {
    "rule_files": ["rules.yml"],
    "evaluation_interval": "15s",
    "tests": [
        {
            "name": "one name for the figures of three exporters",
            "interval": "15s",
            "input_series": [
                {"series": 'nvidia_smi_memory_used_bytes{host="ash", uuid="GPU-1"}', "values": "1048576x9"},
                {"series": 'DCGM_FI_DEV_FB_USED{host="oak", UUID="GPU-2", gpu="0"}', "values": "2x9"},
                {"series": 'gpu_used_vram{host="elm", gpu_id="0"}', "values": "3x9"},
                {"series": 'DCGM_FI_DEV_GPU_UTIL{host="oak", UUID="GPU-2", gpu="0"}', "values": "50x9"},
            ],
            "promql_expr_test": [
                {
                    "expr": "labctl:gpu_memory_used_bytes",
                    "eval_time": "1m",
                    "exp_samples": [
                        {"labels": 'labctl:gpu_memory_used_bytes{host="ash", card="GPU-1"}', "value": 1048576},
                        {"labels": 'labctl:gpu_memory_used_bytes{host="elm", card="0"}', "value": 3145728},
                        {"labels": 'labctl:gpu_memory_used_bytes{host="oak", card="GPU-2"}', "value": 2097152},
                    ],
                },
                {
                    "expr": "labctl:gpu_busy_ratio",
                    "eval_time": "1m",
                    "exp_samples": [{"labels": 'labctl:gpu_busy_ratio{host="oak", card="GPU-2"}', "value": 0.5}],
                },
            ],
        },
        {
            "name": "a target that is down for a minute, and one that may rest",
            "interval": "15s",
            "input_series": [
                {"series": 'up{host="ash", workload="chat", job="llama.cpp"}', "values": "1x3 0x8"},
                {"series": 'up{host="ash", workload="big", job="llama.cpp", rests="yes"}', "values": "0x11"},
            ],
            "alert_rule_test": [
                {"alertname": "TargetDown", "eval_time": "1m30s", "exp_alerts": []},
                {
                    "alertname": "TargetDown",
                    "eval_time": "2m15s",
                    "exp_alerts": [
                        {
                            "exp_labels": {
                                "severity": "critical",
                                "host": "ash",
                                "workload": "chat",
                                "job": "llama.cpp",
                            },
                            "exp_annotations": {"summary": "chat on ash does not answer"},
                        }
                    ],
                },
            ],
        },
        {
            "name": "cards over their budget, full, and hot",
            "interval": "15s",
            "input_series": [
                {"series": 'nvidia_smi_memory_used_bytes{host="ash", uuid="GPU-1"}', "values": f"{23 * GIB}x60"},
                {"series": 'nvidia_smi_memory_free_bytes{host="ash", uuid="GPU-1"}', "values": f"{GIB}x60"},
                {"series": 'nvidia_smi_temperature_gpu{host="ash", uuid="GPU-1"}', "values": "91x60"},
                {"series": 'nvidia_smi_memory_used_bytes{host="oak", uuid="GPU-2"}', "values": f"{23 * GIB}x60"},
            ],
            "alert_rule_test": [
                {
                    "alertname": "GpuMemoryOverBudget",
                    "eval_time": "6m",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "warning", "host": "ash"},
                            "exp_annotations": {
                                "summary": "the cards of ash hold more than the 20 GiB that the lab plans for them"
                            },
                        }
                    ],
                },
                {
                    "alertname": "GpuMemoryFull",
                    "eval_time": "6m",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "warning", "host": "ash", "card": "GPU-1"},
                            "exp_annotations": {"summary": "the memory of card GPU-1 of ash is almost full"},
                        }
                    ],
                },
                {
                    "alertname": "GpuHot",
                    "eval_time": "6m",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "warning", "host": "ash", "card": "GPU-1"},
                            "exp_annotations": {"summary": "card GPU-1 of ash has 91 °C"},
                        }
                    ],
                },
            ],
        },
        {
            "name": "a gateway whose servers fail; wrong keys are nobody's alarm",
            "interval": "15s",
            "input_series": [
                {"series": 'litellm_proxy_total_requests_metric_total{host="prod"}', "values": "0+100x80"},
                {
                    "series": 'litellm_proxy_failed_requests_metric_total{host="prod", exception_status="401"}',
                    "values": "0+90x80",
                },
                {
                    "series": 'litellm_proxy_failed_requests_metric_total{host="prod", exception_status="500"}',
                    "values": "0x40 0+10x40",
                },
            ],
            "alert_rule_test": [
                {"alertname": "GatewayErrors", "eval_time": "9m", "exp_alerts": []},
                {
                    "alertname": "GatewayErrors",
                    "eval_time": "20m",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "critical"},
                            "exp_annotations": {"summary": "10% of requests fail"},
                        }
                    ],
                },
            ],
        },
        {
            "name": "requests that wait all the time",
            "interval": "15s",
            "input_series": [
                {"series": 'llamacpp:requests_deferred{host="ash", workload="chat"}', "values": "2x60"},
                {"series": 'llamacpp:requests_deferred{host="ash", workload="calm"}', "values": "0 3 0x58"},
            ],
            "alert_rule_test": [
                {
                    "alertname": "RequestsWait",
                    "eval_time": "12m",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "warning", "host": "ash", "workload": "chat"},
                            "exp_annotations": {"summary": "requests wait at chat on ash all the time"},
                        }
                    ],
                }
            ],
        },
    ],
}
"""What Prometheus' own tester is asked: figures in, alerts out."""


def test_alerts_say_what_happened_and_only_that(tmp_path: Path) -> None:
    promtool = labs.program(*PROMTOOL)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(every_rule()))
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(TESTS))
    labs.accepted(promtool, "test", "rules", str(tmp_path / "tests.yml"))


def test_the_tester_would_notice_a_silent_alert(tmp_path: Path) -> None:
    promtool = labs.program(*PROMTOOL)
    silent = every_rule()
    silent["groups"] = [g for g in silent["groups"] if g["name"] != "labctl-targets"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(silent))
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(TESTS))
    with pytest.raises(AssertionError, match="TargetDown"):
        labs.accepted(promtool, "test", "rules", str(tmp_path / "tests.yml"))


def test_every_exporter_has_every_figure() -> None:
    assert all(set(sources) == set(CARD) for sources in RECORDS.values())


def test_only_figures_that_the_lab_has() -> None:
    text = yaml.safe_dump(rules([scrape("llama.cpp")], [], Limits()))
    assert "llamacpp:requests_deferred" in text
    assert not [word for word in ("nvidia", "DCGM", "litellm", "vllm", "GpuHot") if word in text]
