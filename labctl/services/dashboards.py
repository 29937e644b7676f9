"""Grafana's dashboards as values: one of the lab, one each of its cards, its gateway and its engines.

Only figures that the lab has are shown. Schema: grafana.com/docs/grafana/latest/visualizations/dashboards, version 39.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from labctl.placed import CardBudget, Scrape
from labctl.services.rules import CARD
from labctl.values import dataclass

SOURCE: Final[dict[str, str]] = {"uid": "labctl-prometheus"}
_WIDTH: Final = 24
_HALF: Final = 12
_HEIGHT: Final = 8

PERCENT: Final = "percentunit"
BYTES: Final = "bytes"
SECONDS: Final = "s"
PER_SECOND: Final = "reqps"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its title, unit, and the query and legend of each line."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


_WHERE: Final = "{{workload}} ({{host}})"

CARDS: Final = (
    Panel("Memory used", BYTES, (("labctl:gpu_memory_used_bytes", "{{host}} {{card}}"),)),
    Panel("Busy", PERCENT, (("labctl:gpu_busy_ratio", "{{host}} {{card}}"),)),
    Panel("Temperature", "celsius", (("labctl:gpu_temperature_celsius", "{{host}} {{card}}"),)),
    Panel("Power", "watt", (("labctl:gpu_power_watts", "{{host}} {{card}}"),)),
)

GATEWAY: Final = (
    Panel(
        "Requests by model",
        PER_SECOND,
        (("sum by (requested_model) (rate(litellm_proxy_total_requests_metric_total[5m]))", "{{requested_model}}"),),
    ),
    Panel(
        "Failed requests",
        PER_SECOND,
        (("sum by (requested_model) (rate(litellm_proxy_failed_requests_metric_total[5m]))", "{{requested_model}}"),),
    ),
    Panel(
        "Time of a request",
        SECONDS,
        tuple(
            (
                f"histogram_quantile({q}, sum by (le) (rate(litellm_request_total_latency_metric_bucket[5m])))",
                f"{round(q * 100)} %",
            )
            for q in (0.5, 0.95, 0.99)
        ),
    ),
    Panel(
        "Tokens",
        "short",
        (
            ("sum by (model) (rate(litellm_input_tokens_metric_total[5m]))", "{{model}} in"),
            ("sum by (model) (rate(litellm_output_tokens_metric_total[5m]))", "{{model}} out"),
        ),
    ),
)

ENGINES: Final[Mapping[str, tuple[Panel, ...]]] = MappingProxyType(
    {
        "llama.cpp": (
            Panel("llama.cpp: tokens per second", "short", (("rate(llamacpp:tokens_predicted_total[5m])", _WHERE),)),
            Panel(
                "llama.cpp: prompt tokens per second", "short", (("rate(llamacpp:prompt_tokens_total[5m])", _WHERE),)
            ),
            Panel("llama.cpp: requests in work", "short", (("llamacpp:requests_processing", _WHERE),)),
            Panel("llama.cpp: requests that wait", "short", (("llamacpp:requests_deferred", _WHERE),)),
        ),
        "vllm": (
            Panel("vLLM: tokens per second", "short", (("rate(vllm:generation_tokens_total[5m])", _WHERE),)),
            Panel("vLLM: KV cache in use", PERCENT, (("vllm:kv_cache_usage_perc", _WHERE),)),
            Panel("vLLM: requests in work", "short", (("vllm:num_requests_running", _WHERE),)),
            Panel("vLLM: requests that wait", "short", (("vllm:num_requests_waiting", _WHERE),)),
        ),
    }
)


def dashboards(lab: str, scrapes: Sequence[Scrape], budgets: Sequence[CardBudget]) -> dict[str, dict[str, Any]]:
    """Return the dashboards of a lab by file name."""
    kinds = {s.kind for s in scrapes}
    boards = {"lab": _board(f"{lab}: overview", _overview(kinds))}
    if kinds & CARD.keys():
        planned = Panel(
            "Memory planned",
            BYTES,
            tuple((f"vector({b.planned})", b.host) for b in sorted(budgets, key=lambda b: b.host)),
        )
        boards["cards"] = _board(f"{lab}: cards", (*CARDS, *((planned,) if budgets else ())))
    if "litellm" in kinds:
        boards["gateway"] = _board(f"{lab}: gateway", GATEWAY)
    engines = [panel for kind, panels in ENGINES.items() if kind in kinds for panel in panels]
    if engines:
        boards["engines"] = _board(f"{lab}: engines", engines)
    return boards


def _overview(kinds: set[str]) -> Iterable[Panel]:
    yield Panel("What answers", "short", (("up", _WHERE),), "stat")
    yield Panel(
        "Alerts",
        "short",
        (('count by (alertname) (ALERTS{alertstate="firing"}) or vector(0)', "{{alertname}}"),),
        "stat",
    )
    yield from CARDS[:2] if kinds & CARD.keys() else ()
    yield from (GATEWAY[0], GATEWAY[2]) if "litellm" in kinds else ()


def _board(title: str, panels: Iterable[Panel]) -> dict[str, Any]:
    return {
        "uid": "labctl-" + "".join(c if c.isalnum() else "-" for c in title.lower())[:32],
        "title": title,
        "tags": ["labctl"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _WIDTH // _HALF)
    source = {"type": "prometheus", **SOURCE}
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": column * _HALF, "y": row * _HEIGHT, "w": _HALF, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": source, "expr": query, "legendFormat": legend}
            for i, (query, legend) in enumerate(panel.lines)
        ],
    }
