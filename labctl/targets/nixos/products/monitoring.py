"""Figures and alerts: ``services.prometheus`` with its Alertmanager and exporters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from labctl.emit import nix
from labctl.targets import shared
from labctl.targets.nixos import program
from labctl.targets.nixos.run import Made, Run
from labctl.targets.nixos.values import given
from labctl.workload import Native, SecretText

_DAY: Final = 86_400
_TIME: Final = "--storage.tsdb.retention.time="
_SIZE: Final = "--storage.tsdb.retention.size="
_FILES: Final = frozenset({"credentials_file", "api_url_file", "url_file"})
"""Keys of both configurations whose value is the place of a secret."""


def prometheus(run: Run) -> Made:
    """Return ``services.prometheus``; the gateway's key is a credential of its service."""
    workload = run.workload
    config = cast("Mapping[str, Any]", workload.files[0].value)
    secrets = _secrets(run)
    credentials = {"gateway-key": secrets["GATEWAY_KEY"]} if "GATEWAY_KEY" in secrets else {}
    port = workload.port()
    value: dict[str, nix.Value] = {
        "enable": True,
        "listenAddress": _address(port.bind),
        "port": port.published or port.listen,
        "retentionTime": _retention(run),
        "extraFlags": [word for word in _args(run) if word.startswith(_SIZE)],
        "globalConfig": config["global"],
        "scrapeConfigs": _placed(config["scrape_configs"], "/run/credentials/prometheus.service/gateway-key"),
        "ruleFiles": [nix.PathRef(f"./files/{workload.name}/{name}") for name in config["rule_files"]],
        "alertmanagers": config.get("alerting", {}).get("alertmanagers"),
    }
    if credentials:
        checked = nix.Noted("syntax-only", "the key is not there while the configuration is built")
        value["checkConfig"] = checked
    return Made(
        options={"services": {"prometheus": given(value)}, **_credentials(run, "prometheus", credentials)},
        unit="prometheus.service",
        form=run.native or workload.forms[0],
        module=True,
        restarts=True,
        files=tuple(file for file in workload.files if file.name in config["rule_files"]),
        credentials=credentials,
    )


def alertmanager(run: Run) -> Made:
    """Return ``services.prometheus.alertmanager``; the receiver's URL is a credential of its service."""
    workload = run.workload
    config = cast("Mapping[str, Any]", workload.files[0].value)
    secrets = _secrets(run)
    credentials = {"url": secrets["ALERT_URL"]} if "ALERT_URL" in secrets else {}
    port = workload.port()
    value: dict[str, nix.Value] = {
        "enable": True,
        "listenAddress": _address(port.bind),
        "port": port.published or port.listen,
        "extraFlags": [word for word in _args(run) if word.startswith("--cluster.")],
        "configuration": _placed(config, "/run/credentials/alertmanager.service/url"),
    }
    return Made(
        options={
            "services": {"prometheus": {"alertmanager": given(value)}},
            **_credentials(run, "alertmanager", credentials),
        },
        unit="alertmanager.service",
        form=run.native or workload.forms[0],
        module=True,
        restarts=True,
        credentials=credentials,
    )


def nvidia_gpu_exporter(run: Run) -> Made:
    """Return ``services.prometheus.exporters.nvidia-gpu``; it looks at all cards."""
    port = run.workload.port()
    value: dict[str, nix.Value] = {
        "enable": True,
        "listenAddress": _address(port.bind),
        "port": port.published or port.listen,
    }
    restart = False
    why = "another driver's nvidia-smi would fail beside the kernel module that is loaded"
    unit: dict[str, nix.Value] = {"restartIfChanged": nix.Noted(restart, why)}
    return Made(
        options={
            "services": {"prometheus": {"exporters": {"nvidia-gpu": value}}},
            "systemd": {"services": {"prometheus-nvidia-gpu-exporter": unit}},
        },
        unit="prometheus-nvidia-gpu-exporter.service",
        form=run.native or run.workload.forms[0],
        module=True,
        restarts=True,
    )


def _secrets(run: Run) -> Mapping[str, SecretText]:
    return shared.Environment.of(run.workload, run.native or run.workload.forms[0], {}).secret


def _credentials(run: Run, unit: str, credentials: Mapping[str, SecretText]) -> dict[str, nix.Value]:
    if not credentials:
        return {}
    loaded = program.loaded(run.host, run.workload, list(credentials))
    return {"systemd": {"services": {unit: {"serviceConfig": {"LoadCredential": loaded}}}}}


def _args(run: Run) -> tuple[str, ...]:
    return run.native.args if isinstance(run.native, Native) else ()


def _retention(run: Run) -> str | None:
    """Return how long figures are kept, in days where it is whole days."""
    text = next((word.removeprefix(_TIME) for word in _args(run) if word.startswith(_TIME)), None)
    seconds = int(text.removesuffix("s")) if text else 0
    return f"{seconds // _DAY}d" if seconds and seconds % _DAY == 0 else text


def _placed(value: Any, place: str) -> Any:
    """Return a configuration that reads its secret where systemd lays it."""
    if isinstance(value, Mapping):
        return {key: place if key in _FILES else _placed(item, place) for key, item in value.items()}
    return [_placed(item, place) for item in value] if isinstance(value, list | tuple) else value


def _address(bind: str) -> str:
    return f"[{bind}]" if ":" in bind else bind
