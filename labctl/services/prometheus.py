"""Prometheus: collects the figures of everything in the lab that has some, and knows when something is wrong.

Configuration: prometheus.io/docs/prometheus/latest/configuration. What is scraped follows from the lab: engines, the
gateway and services say themselves where their figures are (``Workload.metrics``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import Field

from labctl.emit import yaml
from labctl.model.base import Duration, SecretName, Size
from labctl.placed import Scrape
from labctl.quantity import GIB, MIB
from labctl.services import Access, ServiceAsk
from labctl.services.common import DATA, KEY_FILE, Plain, Stored, container, data, listening, secret
from labctl.services.rules import Limits, rules
from labctl.workload import ConfigFile, Container, EnvValue, Health, Metrics, Native, Workload

LISTEN: Final = 9090
_FOLDER: Final = "/etc/prometheus"
_NOBODY: Final = "65534:65534"
_KEY: Final = "GATEWAY_KEY"
_START: Final = f'umask 077; printf %s "${_KEY}" > "$1"; shift; exec "$@"'
_KEPT: Final = 0.8
"""Share of the volume for figures; the rest is for what is being written (prometheus.io/docs, storage: 80-85 %)."""


class PrometheusBlock(Stored):
    """Figures of everything, and the alerts that follow from them."""

    retention: Annotated[Duration, Field(description="how long figures are kept")] = 30 * 86_400
    storage: Annotated[Size, Field(description="how much room they may take")] = 20 * GIB
    interval: Annotated[Duration, Field(description="time between two looks at everything")] = 15
    key: Annotated[
        SecretName, Field(description="secret with its own key for the gateway's figures; its value starts with `sk-`")
    ] = "PROMETHEUS_GATEWAY_KEY"
    hot: Annotated[int, Field(description="degrees Celsius of a card from which there is an alert", ge=30, le=120)] = 85
    slow: Annotated[Duration, Field(description="95 % of requests are to be answered faster than this")] = 60


class Prometheus(Plain):
    """The service."""

    name = "prometheus"
    options = PrometheusBlock
    watched = True
    ports = MappingProxyType({"http": LISTEN})
    calls = ("alertmanager",)
    watches = True

    def client(self, options: PrometheusBlock) -> tuple[Access, str]:
        """Ask for figures, with a key of its own that is good for nothing else."""
        return Access.METRICS, options.key

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:
        """Return the one server."""
        options: PrometheusBlock = ask.options
        files = {"prometheus.yml": config(ask), "rules.yml": rules(ask.scrapes, ask.budgets, _limits(options))}
        workload = Workload(
            name=ask.name,
            host=ask.host.name,
            forms=_forms(ask),
            product="prometheus",
            env={**_environment(ask), **options.extra_env},
            files=tuple(
                ConfigFile(name=name, content=yaml.dump(value), target=f"{_FOLDER}/{name}", value=value)
                for name, value in files.items()
            ),
            ports=tuple(ask.ports.values()),
            health=Health(path="/-/ready", start_period=120),
            memory_limit=options.memory_limit,
            metrics=Metrics(kind="prometheus"),
            origin=ask.origin,
            extra=options.extra,
            description="Prometheus",
        )
        return (workload,)


def config(ask: ServiceAsk) -> dict[str, Any]:
    """Return prometheus.yml; the rules lie beside it."""
    every = f"{ask.options.interval}s"
    alertmanager = ask.other("alertmanager")
    found: dict[str, Any] = {
        "global": {"scrape_interval": every, "evaluation_interval": every, "external_labels": {"lab": ask.lab}},
        "rule_files": ["rules.yml"],
        "scrape_configs": list(_jobs(ask)),
    }
    if alertmanager:
        where = {"static_configs": [{"targets": [alertmanager.addresses["http"]]}]}
        found["alerting"] = {"alertmanagers": [where]}
    return found


def _jobs(ask: ServiceAsk) -> Iterator[dict[str, Any]]:
    """Yield one job per kind of figures; a kind with several paths becomes several jobs."""

    def way(scrape: Scrape) -> tuple[str, str, bool]:
        return scrape.kind, scrape.path, scrape.keyed

    names: set[str] = set()
    for (kind, path, keyed), some in groupby(sorted(ask.scrapes, key=lambda s: (way(s), s.workload)), key=way):
        name = kind if kind not in names else f"{kind}{path.replace('/', '-')}"
        names.add(name)
        job: dict[str, Any] = {"job_name": name, "metrics_path": path}
        if keyed:
            job["authorization"] = {"type": "Bearer", "credentials_file": _key_file(ask)}
        job["static_configs"] = [{"targets": [s.address], "labels": _labels(s)} for s in some]
        yield job


def _labels(scrape: Scrape) -> dict[str, str]:
    """Return whose figures they are; ``rests`` keeps a server that need not run from being an alarm."""
    labels = {"host": scrape.host, "workload": scrape.workload}
    return labels | ({"rests": "yes"} if scrape.on_demand else {})


def _limits(options: PrometheusBlock) -> Limits:
    return Limits(hot=options.hot, slow=options.slow)


def _is_keyed(ask: ServiceAsk) -> bool:
    return any(s.keyed for s in ask.scrapes) and ask.gateway is not None


def _key_file(ask: ServiceAsk) -> str:
    return KEY_FILE.format(lab=ask.lab, name=ask.name)


def _environment(ask: ServiceAsk) -> dict[str, EnvValue]:
    return {_KEY: secret(ask.gateway.key.name)} if ask.gateway and _is_keyed(ask) else {}


def _forms(ask: ServiceAsk) -> tuple[Container | Native, ...]:
    options: PrometheusBlock = ask.options
    shell = ("-euc", _START, "sh", _key_file(ask)) if _is_keyed(ask) else ()
    kept = (
        f"--storage.tsdb.retention.time={options.retention}s",
        f"--storage.tsdb.retention.size={int(options.storage * _KEPT) // MIB}MB",
    )
    args = (f"--config.file={_FOLDER}/prometheus.yml", "--storage.tsdb.path=/prometheus", *kept)
    plain = container(ask, data(ask, "/prometheus"), user=_NOBODY)
    form = Container(
        image=plain.image,
        chosen=plain.chosen,
        entrypoint=("/bin/sh",) if shell else None,
        args=(*shell, "/bin/prometheus", *args) if shell else args,
        mounts=plain.mounts,
        probe=ask.probe,
        user=_NOBODY,
    )
    address = f"--web.listen-address={listening(ask.ports['http'])}"
    own = ("--config.file={config:prometheus.yml}", "--storage.tsdb.path=prometheus-data", *kept, address)
    words = ("/bin/sh", *shell, "prometheus", *own) if shell else ("prometheus", *own)
    return (form, Native(program=words[0], args=words[1:], env={DATA: "prometheus-data"}))


service = Prometheus()
