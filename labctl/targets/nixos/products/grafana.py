"""``services.grafana`` with its data sources and dashboards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from labctl.emit import nix
from labctl.targets import shared
from labctl.targets.nixos import secret
from labctl.targets.nixos.program import stored
from labctl.targets.nixos.run import Made, Run
from labctl.targets.nixos.values import all_of, given
from labctl.workload import Workload

_SETTINGS: Final[Mapping[str, tuple[str, str]]] = {
    "GF_SECURITY_ADMIN_PASSWORD": ("security", "admin_password"),
    "GF_SECURITY_SECRET_KEY": ("security", "secret_key"),
    "GF_USERS_ALLOW_SIGN_UP": ("users", "allow_sign_up"),
    "GF_AUTH_ANONYMOUS_ENABLED": ("auth.anonymous", "enabled"),
    "GF_ANALYTICS_REPORTING_ENABLED": ("analytics", "reporting_enabled"),
    "GF_ANALYTICS_CHECK_FOR_UPDATES": ("analytics", "check_for_updates"),
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": ("analytics", "check_for_plugin_updates"),
    "GF_NEWS_NEWS_FEED_ENABLED": ("news", "news_feed_enabled"),
}
"""Variables of labctl's Grafana → section and key of its settings. All others stay variables of its service."""
_HOME: Final = "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
_KEY_FILE: Final = "/var/lib/grafana/labctl-secret-key"
_MAKE_KEY: Final = f"""\
if [ ! -s {_KEY_FILE} ]; then
  (umask 077 && head -c 32 /dev/urandom | base64 > {_KEY_FILE})
fi
"""
"""Encrypts what Grafana keeps in its database, so it lies beside that; made once, on the machine."""


def grafana(run: Run) -> Made:
    """Return ``services.grafana``; secret settings are read from its environment, so none is in the store."""
    workload = run.workload
    variables = shared.Environment.of(workload, workload.forms[0], {})
    named = {name: text for name, text in variables.plain.items() if name in _SETTINGS}
    rest = {name: text for name, text in variables.plain.items() if name not in _SETTINGS and name != _HOME}
    makes_key = _makes_key(run, {*named, *variables.secret})
    port = workload.port()
    settings = all_of(
        [
            {"server": {"http_addr": port.bind, "http_port": port.published or port.listen}},
            *(_setting(name, _word(text)) for name, text in named.items()),
            *(_setting(name, f"$__env{{{name}}}") for name in variables.secret if name in _SETTINGS),
            _setting("GF_SECURITY_SECRET_KEY", f"$__file{{{_KEY_FILE}}}") if makes_key else {},
            *_home(workload, variables.plain),
        ]
    )
    unit: dict[str, nix.Value] = {
        "environment": rest,
        "preStart": _MAKE_KEY if makes_key else None,
        "serviceConfig": given(
            {"EnvironmentFile": secret.place(run.host, f"{workload.name}.env") if variables.secret else None}
        ),
    }
    value: dict[str, nix.Value] = {"enable": True, "settings": settings, "provision": _provision(workload)}
    return Made(
        options={"services": {"grafana": value}, "systemd": {"services": {"grafana": given(unit)}}},
        unit="grafana.service",
        form=workload.forms[0],
        module=True,
        restarts=True,
        files=tuple(file for file in workload.files if file.value is None),
        secrets=variables.secret,
    )


def _setting(name: str, value: nix.Value) -> dict[str, nix.Value]:
    section, key = _SETTINGS[name]
    return {section: {key: value}}


def _word(text: str) -> nix.Value:
    return {"true": True, "false": False}.get(text, text)


def _makes_key(run: Run, said: set[str]) -> bool:
    """Whether the machine makes Grafana's key itself: the release wants one, and lab.yaml names no secret."""
    return run.release.grafana_secret_key and "GF_SECURITY_SECRET_KEY" not in said


def _home(workload: Workload, plain: Mapping[str, str]) -> Iterator[dict[str, nix.Value]]:
    if _HOME in plain:
        place = nix.Text(stored(workload), f"/{plain[_HOME].rpartition('/')[2]}")
        yield {"dashboards": {"default_home_dashboard_path": place}}


def _provision(workload: Workload) -> dict[str, nix.Value]:
    values = [cast("Mapping[str, Any]", file.value) for file in workload.files if file.value is not None]
    sources = next((v for v in values if "datasources" in v), {})
    providers: list[Any] = next((v["providers"] for v in values if "providers" in v), [])
    placed = [{**provider, "options": {"path": stored(workload)}} for provider in providers]
    return {
        "enable": True,
        "datasources": {"settings": sources},
        "dashboards": {"settings": {"apiVersion": 1, "providers": placed}},
    }
