"""Monitoring as one block: Prometheus, Grafana and Alertmanager on one host, an exporter on every host with cards.

It only stands for the services that it consists of; each can be declared by itself as well, and is then left out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.model.base import Duration, SecretName, Size
from labctl.model.service import ServiceBlock
from labctl.placed import PlacedHost
from labctl.quantity import GIB
from labctl.services import Part, ServiceAsk
from labctl.services.alertmanager import AlertmanagerBlock
from labctl.services.common import Plain
from labctl.services.gpu_exporter import GpuExporterBlock, cards
from labctl.services.grafana import GrafanaBlock
from labctl.services.prometheus import PrometheusBlock
from labctl.workload import Workload

_SHARED: Final = ("port", "bind", "image", "extra", "memory_limit")
"""Keys that every service has and that mean nothing for four of them at once."""


class MonitoringBlock(ServiceBlock):
    """Prometheus, Grafana, Alertmanager and exporters on every GPU host."""

    retention: Annotated[Duration, Field(description="how long figures are kept")] = 30 * 86_400
    storage: Annotated[Size, Field(description="how much room they may take")] = 20 * GIB
    interval: Annotated[Duration, Field(description="time between two looks at everything")] = 15
    slack: Annotated[SecretName | None, Field(description="secret that holds the URL of a Slack webhook")] = None
    webhook: Annotated[SecretName | None, Field(description="secret that holds the URL of any other webhook")] = None
    admin_password: Annotated[SecretName, Field(description="secret that holds the password of Grafana's `admin`")] = (
        "GRAFANA_ADMIN_PASSWORD"  # noqa: S105 - a name
    )
    gpus: Annotated[bool, Field(description="put an exporter on every host with cards")] = True


class Monitoring(Plain):
    """The bundle."""

    name = "monitoring"
    options = MonitoringBlock

    def check(self, name: str, options: MonitoringBlock) -> Iterable[Diagnostic]:
        """Return the problems of its places, and of keys that belong to one of its services."""
        yield from super().check(name, options)
        for key in _SHARED:
            if key in options.model_fields_set:
                yield Diagnostic(
                    code="LAB151",
                    summary=f"`{name}` is several services, and `{key}` belongs to one of them",
                    path=("services", name, key),
                    hint="declare that one by itself, for example `grafana: {host: …, port: …}`",
                )

    def parts(self, name: str, options: MonitoringBlock, hosts: Mapping[str, PlacedHost]) -> Iterator[Part]:
        """Return its services, as they would be declared one by one."""
        host = options.places[0] if options.places else ""
        for kind, block in self._blocks(options).items():
            yield Part(name=kind, kind=kind, host=host, options=block, origin=("services", name))
        for place in cards(hosts) if options.gpus else ():
            exporter = GpuExporterBlock(host=place)
            yield Part(
                name=f"gpu-exporter-{place}",
                kind="gpu-exporter",
                host=place,
                options=exporter,
                origin=("services", name),
            )

    def _blocks(self, options: MonitoringBlock) -> dict[str, Any]:
        return {
            "prometheus": PrometheusBlock.model_construct(
                retention=options.retention, storage=options.storage, interval=options.interval
            ),
            "grafana": GrafanaBlock.model_construct(admin_password=options.admin_password),
            "alertmanager": AlertmanagerBlock.model_construct(slack=options.slack, webhook=options.webhook),
        }

    def workloads(self, ask: ServiceAsk) -> tuple[Workload, ...]:  # noqa: ARG002
        """Return nothing: its parts are services of their own."""
        return ()


service = Monitoring()
