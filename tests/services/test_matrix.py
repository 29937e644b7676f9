"""Every service on every target: it renders, or the target says in words what it has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labctl.services import SERVICES
from labctl.targets import TARGETS
from tests.resolve import labs as plain
from tests.services import labs
from tests.targets import samples
from tests.tools import compose

PROGRAMS = {"alertmanager", "gpu-exporter", "prometheus"}
"""Services that are programs of the host as well as containers."""
CONTAINERS = {"compose", "k3s", "nixos"}
ALL: dict[str, Any] = {
    "monitoring": {"host": "box"},
    "open-webui": {"host": "box", "database": "postgres"},
    "searxng": {"host": "box"},
    "phoenix": {"host": "box"},
    "neo4j": {"host": "box", "schema": {"vectors": ({"label": "Doc", "dimensions": 8},)}},
    "postgres": {"host": "box"},
}


def written(service: str, target: str) -> Any:
    """Render a lab of this service alone, on a host with a card that nothing uses."""
    host = plain.box("RTX 3090", target=target, address="10.0.0.1")
    host |= {"nixos": plain.MACHINE} if target == "nixos" else {}
    data = plain.lab({}, {"box": host}, services={service: {"host": "box"}}, models={})
    return plain.written(data)


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("service", sorted(SERVICES))
def test_it_renders_or_says_why_not(service: str, target: str) -> None:
    found = written(service, target)
    if target in CONTAINERS or service in PROGRAMS:
        assert found.ok, plain.errors(found.diagnostics)
        assert found.value.workloads
    else:
        assert set(plain.codes(found)) == {"LAB080"}


def test_compose_accepts_every_service_at_once(tmp_path: Path) -> None:
    found = labs.lab(ALL, gateway={"keys": {"database": "postgres"}})
    samples.write(found.tree, tmp_path)
    compose.run(tmp_path / "opt/labctl/test/compose.yaml", "--quiet")


def test_nothing_about_the_others_changes_what_runs() -> None:
    """A service that is added changes only those that are told about it."""
    few = {name: ALL[name] for name in ("neo4j", "postgres", "searxng", "phoenix")}
    before, after = (
        {u.name: u.fingerprint for u in labs.lab(services, gateway={"keys": {"database": "postgres"}}).tree.units}
        for services in (few, {**few, "open-webui": {"host": "box"}})
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set()
    assert set(after) - set(before) == {"open-webui", "gateway-keys"}
