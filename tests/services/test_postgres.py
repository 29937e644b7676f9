"""PostgreSQL: data that stays, a password that is never shown, and no port that nobody needs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from labctl.model.lab import frozen
from labctl.services import COMING, SERVICES, ServiceAsk, load
from labctl.services.postgres import PostgresBlock, service
from labctl.workload import Container, Port, Probe, SecretRef, SecretText, Workload
from tests.gateways.labs import HOST


def ask(name: str = "postgres", published: int | None = None, **keys: Any) -> ServiceAsk:
    options = PostgresBlock.model_validate(frozen(keys))
    return ServiceAsk(
        lab="demo",
        name=name,
        host=HOST,
        options=options,
        image="postgres:16.15",
        probe=Probe.NONE,
        ports={"postgres": Port(name="postgres", listen=5432, published=published)},
        origin=("services", name),
    )


def workload(asked: ServiceAsk) -> Workload:
    (found,) = service.workloads(asked)
    return found


def test_registry() -> None:
    assert [load(name).name for name in SERVICES] == list(SERVICES)
    assert not set(SERVICES) & set(COMING)
    assert {"langfuse", "watchdog", "load-test"} <= set(COMING)


def test_the_volume_is_named_after_the_service_not_the_folder() -> None:
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("postgres", {}, "postgres-data"),
        ("keys-db", {"kind": "postgres"}, "keys-db-data"),
        ("postgres", {"volume": "old_litellm_pg"}, "old_litellm_pg"),
    )
    for name, keys, volume in cases:
        (form,) = workload(ask(name, **keys)).forms
        assert isinstance(form, Container)
        (mount,) = form.mounts
        assert (mount.source, mount.target, mount.volume) == (volume, "/var/lib/postgresql/data", True)


def test_the_password_is_a_reference() -> None:
    env = workload(ask(password="KEYS_DB_PASSWORD")).env
    assert env["POSTGRES_PASSWORD"] == SecretText((SecretRef("KEYS_DB_PASSWORD"),))


def test_health_asks_for_the_database_itself() -> None:
    health = workload(ask(user="lite", database="keys")).health
    assert health is not None
    assert health.command == ("pg_isready", "--username", "lite", "--dbname", "keys")


@pytest.mark.parametrize("published", [None, 5432])
def test_a_port_only_when_somebody_elsewhere_needs_it(published: int | None) -> None:
    port = workload(ask(published=published)).port("postgres")
    assert (port.listen, port.published) == (5432, published)


def test_the_link_is_a_url_with_a_reference() -> None:
    link = service.database(ask(), "192.168.0.152", 5433, same_host=False)
    password = SecretRef("POSTGRES_PASSWORD")
    assert link.url == SecretText(("postgresql://litellm:", password, "@192.168.0.152:5433/litellm"))
    assert link.workload is None
    assert service.database(ask(), "postgres", 5432, same_host=True).workload == "postgres"


def test_one_database_is_on_one_host() -> None:
    (problem,) = service.check("postgres", PostgresBlock.model_validate(frozen({"hosts": ["a", "b"]})))
    assert (problem.code, problem.path) == ("LAB138", ("services", "postgres", "hosts"))
    assert list(service.check("postgres", PostgresBlock(host="a"))) == []


def test_names_that_would_break_sql_are_refused() -> None:
    with pytest.raises(ValidationError):
        PostgresBlock(user="x; drop table")
