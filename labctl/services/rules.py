"""Prometheus' rules: figures under one name whoever measures them, and the alerts of a lab.

Names of figures: nvidia_gpu_exporter 1.4 (``nvidia_smi_*``, bytes and ratios), DCGM-Exporter 4 (``DCGM_FI_DEV_*``, MiB
and percent), AMD's Device Metrics Exporter (``gpu_*``, MB and percent), LiteLLM's integrations/prometheus.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from labctl.placed import CardBudget, Scrape
from labctl.quantity import format_size
from labctl.values import dataclass

_MIB: Final = " * 1048576"

RECORDS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = MappingProxyType(
    {
        "labctl:gpu_memory_used_bytes": {
            "nvidia-smi": ("nvidia_smi_memory_used_bytes", ""),
            "dcgm": ("DCGM_FI_DEV_FB_USED", _MIB),
            "amd-gpu": ("gpu_used_vram", _MIB),
        },
        "labctl:gpu_memory_free_bytes": {
            "nvidia-smi": ("nvidia_smi_memory_free_bytes", ""),
            "dcgm": ("DCGM_FI_DEV_FB_FREE", _MIB),
            "amd-gpu": ("gpu_free_vram", _MIB),
        },
        "labctl:gpu_busy_ratio": {
            "nvidia-smi": ("nvidia_smi_utilization_gpu_ratio", ""),
            "dcgm": ("DCGM_FI_DEV_GPU_UTIL", " / 100"),
            "amd-gpu": ("gpu_gfx_activity", " / 100"),
        },
        "labctl:gpu_temperature_celsius": {
            "nvidia-smi": ("nvidia_smi_temperature_gpu", ""),
            "dcgm": ("DCGM_FI_DEV_GPU_TEMP", ""),
            "amd-gpu": ("gpu_junction_temperature", ""),
        },
        "labctl:gpu_power_watts": {
            "nvidia-smi": ("nvidia_smi_power_draw_watts", ""),
            "dcgm": ("DCGM_FI_DEV_POWER_USAGE", ""),
            "amd-gpu": ("gpu_power_usage", ""),
        },
    }
)
"""Our name → kind of exporter → its figure, and what makes it ours."""

CARD: Final[Mapping[str, str]] = MappingProxyType({"nvidia-smi": "uuid", "dcgm": "UUID", "amd-gpu": "gpu_id"})
"""The label by which an exporter tells cards apart."""

_REQUESTS: Final = "litellm_proxy_total_requests_metric_total"
_FAILED: Final = "litellm_proxy_failed_requests_metric_total"
_LATENCY: Final = "litellm_request_total_latency_metric_bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From when there is an alert: degrees Celsius, seconds."""

    hot: int = 85
    slow: int = 60


def rules(scrapes: Sequence[Scrape], budgets: Sequence[CardBudget], limits: Limits) -> dict[str, Any]:
    """Return rules.yml: only rules about figures that the lab has."""
    kinds = {s.kind for s in scrapes}
    gpu = [kind for kind in CARD if kind in kinds]
    groups: dict[str, list[dict[str, Any]]] = {
        "labctl-cards": list(_records(gpu)),
        "labctl-targets": [_target_down()],
        "labctl-card-alerts": list(_card_alerts(budgets, limits)) if gpu else [],
        "labctl-gateway-alerts": list(_gateway_alerts(limits)) if "litellm" in kinds else [],
        "labctl-engine-alerts": list(_engine_alerts(kinds)),
    }
    return {"groups": [{"name": name, "rules": some} for name, some in groups.items() if some]}


def _records(kinds: Iterable[str]) -> Iterator[dict[str, Any]]:
    for kind in kinds:
        for name, sources in RECORDS.items():
            metric, factor = sources[kind]
            named = f'label_replace({metric}{factor}, "card", "$1", "{CARD[kind]}", "(.+)")'
            yield {"record": name, "expr": f"max by (host, card) ({named})"}


def _target_down() -> dict[str, Any]:
    return _alert(
        "TargetDown",
        'up{rests=""} == 0',
        "1m",
        "critical",
        "{{ $labels.workload }} on {{ $labels.host }} does not answer",
    )


def _card_alerts(budgets: Iterable[CardBudget], limits: Limits) -> Iterator[dict[str, Any]]:
    where = "card {{ $labels.card }} of {{ $labels.host }}"
    used, free = "labctl:gpu_memory_used_bytes", "labctl:gpu_memory_free_bytes"
    yield _alert(
        "GpuHot", f"labctl:gpu_temperature_celsius > {limits.hot}", "5m", "warning", f"{where} has {{{{ $value }}}} °C"
    )
    full = f"{used} / ({used} + {free}) > 0.95"
    yield _alert("GpuMemoryFull", full, "5m", "warning", f"the memory of {where} is almost full")
    for budget in sorted(budgets, key=lambda b: b.host):
        yield _alert(
            "GpuMemoryOverBudget",
            f'sum by (host) ({used}{{host="{budget.host}"}}) > {budget.planned}',
            "5m",
            "warning",
            f"the cards of {budget.host} hold more than the {format_size(budget.planned)} that the lab plans for them",
        )


def _gateway_alerts(limits: Limits) -> Iterator[dict[str, Any]]:
    # a wrong key or a wrong name is the client's own doing; 429 is what LiteLLM says when no server is left to ask
    share = f'sum(rate({_FAILED}{{exception_status=~"5..|429"}}[5m])) / sum(rate({_REQUESTS}[5m])) > 0.05'
    yield _alert("GatewayErrors", share, "5m", "critical", "{{ $value | humanizePercentage }} of requests fail")
    slow = f"histogram_quantile(0.95, sum by (le) (rate({_LATENCY}[5m]))) > {limits.slow}"
    yield _alert("GatewaySlow", slow, "5m", "warning", "one request in twenty takes longer than {{ $value }} s")


def _engine_alerts(kinds: set[str]) -> Iterator[dict[str, Any]]:
    waiting = {"llama.cpp": "llamacpp:requests_deferred", "vllm": "vllm:num_requests_waiting"}
    for kind, metric in waiting.items():
        if kind in kinds:
            yield _alert(
                "RequestsWait",
                f"min_over_time({metric}[5m]) > 0",
                "5m",
                "warning",
                "requests wait at {{ $labels.workload }} on {{ $labels.host }} all the time",
            )


def _alert(name: str, expr: str, lasts: str, severity: str, summary: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": lasts,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }
