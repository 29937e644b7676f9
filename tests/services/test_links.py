"""What services are told about the gateway and each other, on one host and on several."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from labctl.placed import ServiceLink
from labctl.workload import Container, SecretRef, SecretText, Start
from tests.resolve import labs as plain
from tests.services import labs

EVERYTHING: dict[str, Any] = {
    "monitoring": {"host": "box"},
    "open-webui": {"host": "box", "database": "postgres"},
    "searxng": {"host": "box"},
    "phoenix": {"host": "box"},
    "neo4j": {"host": "box", "schema": {"unique": ({"label": "Doc", "properties": ("id",)},)}},
    "postgres": {"host": "box"},
}
KEPT = {"keys": {"database": "postgres"}}


def secret(name: str) -> SecretText:
    return SecretText((SecretRef(name),))


def jobs(found: Any) -> dict[str, dict[str, Any]]:
    """Return Prometheus' jobs by name."""
    config = yaml.safe_load(labs.file(found, "prometheus", "prometheus.yml").content)
    return {job["job_name"]: job for job in config["scrape_configs"]}


def targets(found: Any) -> dict[str, str]:
    """Return what is scraped: workload → address."""
    every = [group for job in jobs(found).values() for group in job["static_configs"]]
    return {group["labels"]["workload"]: group["targets"][0] for group in every}


def test_a_chat_page_reaches_models_search_and_documents() -> None:
    page = labs.of(labs.lab(EVERYTHING, gateway=KEPT), "open-webui")
    assert page.env["OPENAI_API_BASE_URL"] == "http://gateway:4000/v1"
    assert page.env["OPENAI_API_KEY"] == secret("OPEN_WEBUI_GATEWAY_KEY")
    assert page.env["DEFAULT_MODELS"] == "chat"
    assert (page.env["RAG_EMBEDDING_ENGINE"], page.env["RAG_EMBEDDING_MODEL"]) == ("openai", "vectors")
    assert page.env["SEARXNG_QUERY_URL"] == "http://searxng:8080/search?q=<query>"
    assert {"gateway", "gateway-keys", "searxng", "postgres-databases"} <= set(page.after)
    assert page.public == ("http",)


def test_nobody_can_sign_up_unless_asked_and_then_waits_for_an_administrator() -> None:
    closed, opened = (
        labs.of(labs.lab({"open-webui": {"host": "box", **keys}}), "open-webui").env for keys in ({}, {"sign_up": True})
    )
    assert (closed["ENABLE_SIGNUP"], opened["ENABLE_SIGNUP"]) == ("False", "True")
    assert opened["DEFAULT_USER_ROLE"] == "pending"
    assert isinstance(closed["WEBUI_ADMIN_PASSWORD"], SecretText)


def test_what_is_not_in_the_lab_is_switched_off() -> None:
    found = plain.rendered(
        plain.lab({"chat": labs.CHAT}, labs.hosts("compose"), services={"open-webui": {"host": "box"}})
    )
    env = labs.of(found, "open-webui").env
    assert (env["ENABLE_OPENAI_API"], env["ENABLE_WEB_SEARCH"]) == ("False", "False")
    assert "DATABASE_URL" not in env


def test_each_client_has_a_key_of_its_own_good_for_one_thing() -> None:
    with_database = labs.lab(EVERYTHING, gateway=KEPT)
    keys = {"LABCTL_KEY_MODELS_OPEN_WEBUI", "LABCTL_KEY_METRICS_PROMETHEUS"}
    task, proxy = labs.of(with_database, "gateway-keys"), labs.of(with_database, "gateway")
    assert keys <= set(task.env)
    assert not keys & set(proxy.env)
    assert (task.start, task.after) == (Start.ONCE, ("gateway",))
    without = labs.lab({"open-webui": {"host": "box"}, "prometheus": {"host": "box"}})
    assert keys <= set(labs.of(without, "gateway").env)
    assert not [w for w in without.workloads if w.start is Start.ONCE]


def test_tables_are_made_before_any_proxy_starts_and_by_nobody_else() -> None:
    found = labs.lab(EVERYTHING, gateway=KEPT)
    tables, proxy = labs.of(found, "gateway-tables"), labs.of(found, "gateway")
    assert (tables.start, tables.after, proxy.after) == (Start.ONCE, ("postgres",), ("gateway-tables",))
    assert (tables.env["DISABLE_SCHEMA_UPDATE"], proxy.env["DISABLE_SCHEMA_UPDATE"]) == ("false", "true")
    forms = [next(f for f in w.forms if isinstance(f, Container)) for w in (tables, proxy)]
    assert forms[0].image == forms[1].image
    assert forms[0].args == ("--skip_server_startup",)


def test_databases_of_others_are_made_once() -> None:
    found = labs.lab({**EVERYTHING, "phoenix": {"host": "box", "database": "postgres"}}, gateway=KEPT)
    task = labs.of(found, "postgres-databases")
    (form,) = task.forms
    assert isinstance(form, Container)
    assert form.args[-2:] == ("open_webui", "phoenix")
    url = labs.of(found, "phoenix").env["PHOENIX_SQL_DATABASE_URL"]
    assert url == SecretText(("postgresql://litellm:", SecretRef("POSTGRES_PASSWORD"), "@postgres:5432/phoenix"))
    assert "postgres-databases" in labs.of(found, "phoenix").after


def test_requests_are_traced_where_there_is_phoenix() -> None:
    found = labs.lab({"phoenix": {"host": "box"}})
    assert labs.of(found, "gateway").env["PHOENIX_COLLECTOR_HTTP_ENDPOINT"] == "http://phoenix:6006/v1/traces"
    config = yaml.safe_load(labs.file(found, "gateway", "config.yaml").content)
    assert config["litellm_settings"]["callbacks"] == ["arize_phoenix"]
    assert labs.of(found, "phoenix").serves_to == ("gateway",)


def test_everything_with_figures_is_scraped_by_name() -> None:
    found = labs.lab(EVERYTHING, gateway=KEPT)
    assert targets(found) == {
        "alertmanager": "alertmanager:9093",
        "chat": "chat:8080",
        "gateway": "gateway:4000",
        "gpu-exporter-box": "gpu-exporter-box:9835",
        "grafana": "grafana:3000",
        "prometheus": "prometheus:9090",
        "vectors": "vectors:8080",
    }
    gateway = jobs(found)["litellm"]
    assert gateway["metrics_path"] == "/metrics/"
    assert gateway["authorization"]["credentials_file"] == "/dev/shm/labctl-test-prometheus"
    assert [name for name, job in jobs(found).items() if "authorization" in job] == ["litellm"]


def test_callers_are_whoever_calls_and_nobody_else() -> None:
    found = labs.lab(EVERYTHING, gateway=KEPT)
    served = {w.name: w.serves_to for w in found.workloads}
    assert served == {
        "alertmanager": ("grafana", "prometheus"),
        "chat": ("gateway", "prometheus"),
        "gateway": None,
        "gateway-keys": (),
        "gateway-tables": (),
        "gpu-exporter-box": ("prometheus",),
        "grafana": ("prometheus",),
        "neo4j": None,
        "neo4j-schema": (),
        "open-webui": (),
        "phoenix": ("gateway",),
        "postgres": ("gateway", "gateway-keys", "gateway-tables", "open-webui", "postgres-databases"),
        "postgres-databases": (),
        "prometheus": ("grafana",),
        "searxng": ("open-webui",),
        "vectors": ("gateway", "prometheus"),
    }


def test_pages_are_reached_from_elsewhere_and_the_rest_is_not() -> None:
    found = labs.lab(EVERYTHING, gateway=KEPT)
    wide = {(w.name, p.published) for w in found.workloads for p in w.ports if p.published and p.bind == "10.0.0.1"}
    assert wide == {("gateway", 4000), ("grafana", 3000), ("open-webui", 8080), ("phoenix", 6006)}
    loopback = {w.name for w in found.workloads for p in w.ports if p.published and p.bind == "127.0.0.1"}
    # their images have nothing on board that asks for health: the host does
    assert loopback == {"gpu-exporter-box", "searxng"}


def test_a_page_makes_room_for_a_port_that_is_declared() -> None:
    chat = {**labs.CHAT, "port": 8080}
    found = labs.lab({"open-webui": {"host": "box"}}, deployments={"chat": chat})
    assert labs.of(found, "open-webui").port().published not in {8080, None}
    pinned = labs.lab({"open-webui": {"host": "box", "port": 8090}}, deployments={"chat": chat})
    assert labs.of(pinned, "open-webui").port().published == 8090


def test_on_several_hosts_ports_are_published_for_those_who_need_them_only() -> None:
    services = {
        "monitoring": {"host": "box1"},
        "open-webui": {"host": "box2"},
        "searxng": {"host": "box1"},
        "phoenix": {"host": "box1"},
        "postgres": {"host": "box1"},
    }
    found = labs.lab(services, gateway={**KEPT, "host": "box1"}, hosts=labs.hosts("compose", "compose", "compose"))
    page = labs.of(found, "open-webui")
    search = labs.of(found, "searxng").port()
    assert page.env["OPENAI_API_BASE_URL"] == "http://10.0.0.2:4000/v1"
    assert page.env["SEARXNG_QUERY_URL"] == f"http://10.0.0.2:{search.published}/search?q=<query>"
    assert (search.bind, page.after) == ("10.0.0.2", ())
    exporter = labs.of(found, "gpu-exporter-box").port()
    assert exporter.bind == "10.0.0.1"
    assert targets(found)["gpu-exporter-box"] == f"10.0.0.1:{exporter.published}"
    assert labs.of(found, "postgres").port("postgres").published is None
    assert labs.of(found, "alertmanager").port().published is None


def test_figures_that_cannot_be_reached_are_a_warning() -> None:
    found = plain.written(
        plain.lab(
            {"chat": labs.CHAT},
            labs.hosts("compose", "compose"),
            gateway=labs.GATEWAY,
            services={"prometheus": {"host": "box1"}},
        )
    )
    (warning,) = [d for d in found.diagnostics if d.code == "LAB152"]
    assert (warning.is_error, warning.path) == (False, ("services", "prometheus"))
    assert warning.summary == "`prometheus` runs on `box1` and cannot reach figures of programs on `box`"


def test_a_server_that_rests_is_scraped_and_is_no_alarm() -> None:
    on_demand = {**labs.CHAT, "start": "on-demand"}
    found = labs.lab({"prometheus": {"host": "box"}}, deployments={"chat": on_demand})
    (group,) = jobs(found)["llama.cpp"]["static_configs"]
    assert group["labels"] == {"host": "box", "workload": "chat", "rests": "yes"}


def test_what_is_declared_by_itself_is_left_out_of_the_bundle() -> None:
    found = labs.lab({"monitoring": {"host": "box"}, "grafana": {"host": "box", "port": 3333}})
    assert labs.of(found, "grafana").port().published == 3333
    assert labs.of(found, "grafana").origin == ("services", "grafana")
    assert labs.of(found, "prometheus").origin == ("services", "monitoring")


def test_grafana_has_its_source_and_a_dashboard_of_everything() -> None:
    found = labs.lab(EVERYTHING, gateway=KEPT)
    sources = yaml.safe_load(labs.file(found, "grafana", "datasources.yaml").content)["datasources"]
    assert [(s["type"], s["url"]) for s in sources] == [
        ("prometheus", "http://prometheus:9090"),
        ("alertmanager", "http://alertmanager:9093"),
    ]
    boards = [json.loads(f.content) for f in labs.of(found, "grafana").files if f.name.endswith(".json")]
    assert [b["title"] for b in boards] == ["test: overview", "test: cards", "test: gateway", "test: engines"]
    assert len({b["uid"] for b in boards}) == len(boards)
    named = {t["datasource"]["uid"] for b in boards for p in b["panels"] for t in p["targets"]}
    assert named == {sources[0]["uid"]}


def test_an_exporter_looks_at_cards_and_takes_none() -> None:
    claim = labs.of(labs.lab({"monitoring": {"host": "box"}}), "gpu-exporter-box").gpu
    assert claim is not None
    assert (claim.observes, len(claim.devices)) == (True, 2)


@pytest.mark.parametrize(
    ("keys", "cards", "image", "kind"),
    [
        ({}, ("RTX 3090",), "nvidia_gpu_exporter", "nvidia-smi"),
        ({"reads": "dcgm"}, ("H100 80GB",), "dcgm-exporter", "dcgm"),
        ({}, ("RX 7900 XTX",), "device-metrics-exporter", "amd-gpu"),
    ],
)
def test_cards_are_read_by_what_knows_them(keys: dict[str, Any], cards: tuple[str, ...], image: str, kind: str) -> None:
    on_cpu = {**labs.CHAT, "on": {"host": "box", "gpus": "none"}}
    found = labs.lab(
        {"gpu-exporter": keys},
        deployments={"chat": on_cpu},
        hosts=labs.hosts("compose", cards=cards)
        | {"box": {**labs.hosts(cards=cards)["box"], "group_ids": {"video": 44, "render": 109}}},
    )
    exporter = labs.of(found, "gpu-exporter-box")
    assert exporter.metrics is not None
    assert (exporter.metrics.kind, image in next(iter(exporter.forms)).image) == (kind, True)  # type: ignore[union-attr]
    told = {*exporter.env.values(), *(f.content for f in exporter.files)}
    assert kind == "nvidia-smi" or any(str(exporter.port().listen) in str(text) for text in told), (
        "it listens elsewhere"
    )


def test_a_port_that_cannot_be_reached_has_no_url() -> None:
    link = ServiceLink(name="a", kind="b", addresses={"http": "a:1"}, after=True)
    assert link.url() == "http://a:1"
    with pytest.raises(KeyError):
        link.url("grpc")
