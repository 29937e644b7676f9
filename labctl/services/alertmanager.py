"""Alertmanager: tells people what Prometheus found, once, and again when it goes on.

Configuration: prometheus.io/docs/alerting/latest/configuration. Secrets are files there: the program is started through
a shell that writes them from the environment into memory.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import Field

from labctl.emit import yaml
from labctl.model.base import Duration, SecretName
from labctl.services import ServiceAsk
from labctl.services.common import DATA, KEY_FILE, Plain, Stored, container, data, listening, secret
from labctl.workload import ConfigFile, Container, EnvValue, Health, Metrics, Native, Workload

LISTEN: Final = 9093
_CONFIG: Final = "/etc/alertmanager/alertmanager.yml"
_NOBODY: Final = "65534:65534"
_START: Final = 'umask 077; printf %s "$ALERT_URL" > "$1"; shift; exec "$@"'


class AlertmanagerBlock(Stored):
    """Who is told of alerts. Without a receiver they are only shown on Prometheus' and Grafana's pages."""

    slack: Annotated[SecretName | None, Field(description="secret that holds the URL of a Slack webhook")] = None
    channel: Annotated[str | None, Field(description="Slack channel; default: the webhook's own")] = None
    webhook: Annotated[SecretName | None, Field(description="secret that holds the URL of any other webhook")] = None
    repeat: Annotated[Duration, Field(description="how often an alert that goes on is told again")] = 4 * 3600


class Alertmanager(Plain):
    """The service."""

    name = "alertmanager"
    options = AlertmanagerBlock
    watched = True
    ports = MappingProxyType({"http": LISTEN})

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the one server."""
        options: AlertmanagerBlock = ask.options
        value = config(ask)
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=_forms(ask),
            product="alertmanager",
            env={**_environment(options), **options.extra_env},
            files=(ConfigFile(name="alertmanager.yml", content=yaml.dump(value), target=_CONFIG, value=value),),
            ports=tuple(ask.ports.values()),
            health=Health(path="/-/ready", start_period=60),
            memory_limit=options.memory_limit,
            metrics=Metrics(kind="alertmanager"),
            origin=ask.origin,
            extra=options.extra,
            description="Alertmanager",
        )
        return (workload,)


def config(ask: ServiceAsk) -> dict[str, Any]:
    """Return alertmanager.yml: one receiver for everything."""
    options: AlertmanagerBlock = ask.options
    receiver: dict[str, Any] = {"name": "lab"}
    if options.slack:
        slack: dict[str, Any] = {"api_url_file": _key_file(ask), "send_resolved": True}
        receiver["slack_configs"] = [slack | ({"channel": options.channel} if options.channel else {})]
    elif options.webhook:
        receiver["webhook_configs"] = [{"url_file": _key_file(ask), "send_resolved": True}]
    route = {
        "receiver": "lab",
        "group_by": ["alertname", "host"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": f"{options.repeat}s",
    }
    # a host that is down explains everything else about it
    hidden = {
        "source_matchers": ['alertname = "TargetDown"'],
        "target_matchers": ['severity = "warning"'],
        "equal": ["host", "workload"],
    }
    return {"route": route, "receivers": [receiver], "inhibit_rules": [hidden]}


def _key_file(ask: ServiceAsk) -> str:
    return KEY_FILE.format(lab=ask.lab, name=ask.name)


def _environment(options: AlertmanagerBlock) -> dict[str, EnvValue]:
    name = options.slack or options.webhook
    return {"ALERT_URL": secret(name)} if name else {}


def _forms(ask: ServiceAsk) -> tuple[Container | Native, ...]:
    options: AlertmanagerBlock = ask.options
    shell = ("-euc", _START, "sh", _key_file(ask)) if options.slack or options.webhook else ()
    quiet = "--cluster.listen-address="
    args = (f"--config.file={_CONFIG}", "--storage.path=/alertmanager", f"--web.listen-address=:{LISTEN}", quiet)
    plain = container(ask, data(ask, "/alertmanager"), user=_NOBODY)
    inside = (*shell, "/bin/alertmanager", *args) if shell else args
    form = Container(
        image=plain.image,
        chosen=plain.chosen,
        entrypoint=("/bin/sh",) if shell else None,
        args=inside,
        mounts=plain.mounts,
        probe=ask.probe,
        user=_NOBODY,
    )
    address = f"--web.listen-address={listening(ask.ports['http'])}"
    own = ("--config.file={config:alertmanager.yml}", "--storage.path=alertmanager-data", address, quiet)
    program = "prometheus-alertmanager"
    words = ("/bin/sh", *shell, program, *own) if shell else (program, *own)
    return (form, Native(program=words[0], args=words[1:], env={DATA: "alertmanager-data"}))


service = Alertmanager()
