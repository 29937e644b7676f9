"""Grafana with its data source and dashboards in files: nothing is clicked together, nothing is lost.

Provisioning: grafana.com/docs/grafana/latest/administration/provisioning; settings as ``GF_<SECTION>_<KEY>``.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import Field

from labctl.emit import yaml
from labctl.model.base import SecretName
from labctl.services import ServiceAsk
from labctl.services.common import Plain, Stored, container, data, secret
from labctl.services.dashboards import SOURCE, dashboards
from labctl.workload import ConfigFile, EnvValue, Health, Metrics, Workload

LISTEN: Final = 3000
_PROVISIONING: Final = "/etc/grafana/provisioning"
_DASHBOARDS: Final = "/etc/labctl/dashboards"


class GrafanaBlock(Stored):
    """Dashboards."""

    admin_password: Annotated[SecretName, Field(description="secret that holds the password of `admin`")] = (
        "GRAFANA_ADMIN_PASSWORD"  # noqa: S105 - a name
    )
    anonymous: Annotated[bool, Field(description="let everybody look who reaches the page")] = False


class Grafana(Plain):
    """The service."""

    name = "grafana"
    options = GrafanaBlock
    watched = True
    ports = MappingProxyType({"http": LISTEN})
    page = "http"
    calls = ("prometheus", "alertmanager")

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the one server; it starts after the Prometheus of its own host."""
        options: GrafanaBlock = ask.options
        prometheus = ask.other("prometheus")
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=(container(ask, data(ask, "/var/lib/grafana"), user="472:0"),),
            product="grafana",
            env={**_environment(options), **options.extra_env},
            files=_files(ask),
            ports=tuple(ask.ports.values()),
            health=Health(path="/api/health", start_period=180),
            after=(prometheus.name,) if prometheus and prometheus.after else (),
            memory_limit=options.memory_limit,
            public=("http",),
            metrics=Metrics(kind="grafana"),
            origin=ask.origin,
            extra=options.extra,
            description="Grafana",
        )
        return (workload,)


def _environment(options: GrafanaBlock) -> dict[str, EnvValue]:
    return {
        "GF_SECURITY_ADMIN_PASSWORD": secret(options.admin_password),
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_AUTH_ANONYMOUS_ENABLED": str(options.anonymous).lower(),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{_DASHBOARDS}/lab.json",
    }


def _files(ask: ServiceAsk) -> tuple[ConfigFile, ...]:
    provider = {
        "name": "labctl",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "options": {"path": _DASHBOARDS},
    }
    texts: dict[str, tuple[str, Any]] = {
        "datasources.yaml": (
            f"{_PROVISIONING}/datasources/labctl.yaml",
            {"apiVersion": 1, "datasources": _sources(ask)},
        ),
        "dashboards.yaml": (f"{_PROVISIONING}/dashboards/labctl.yaml", {"apiVersion": 1, "providers": [provider]}),
    }
    files = [
        ConfigFile(name=name, content=yaml.dump(value), target=target, value=value)
        for name, (target, value) in texts.items()
    ]
    for name, board in dashboards(ask.lab, ask.scrapes, ask.budgets).items():
        content = json.dumps(board, indent=1, ensure_ascii=False) + "\n"
        files.append(ConfigFile(name=f"{name}.json", content=content, target=f"{_DASHBOARDS}/{name}.json"))
    return tuple(files)


def _sources(ask: ServiceAsk) -> list[dict[str, Any]]:
    """Return the data sources, each known by a fixed id that the dashboards name."""
    found: list[dict[str, Any]] = []
    prometheus, alertmanager = ask.other("prometheus"), ask.other("alertmanager")
    if prometheus:
        found.append({"name": "Prometheus", "type": "prometheus", "url": prometheus.url(), "isDefault": True} | SOURCE)
    if alertmanager:
        found.append(
            {
                "name": "Alertmanager",
                "type": "alertmanager",
                "uid": "labctl-alertmanager",
                "url": alertmanager.url(),
                "jsonData": {"implementation": "prometheus"},
            }
        )
    return [source | {"access": "proxy", "editable": False} for source in found]


service = Grafana()
