"""What single services render: settings, schemas, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from labctl.hosts.supervisor_conf import SupervisorConf
from labctl.model.lab import frozen
from labctl.services import SERVICES, load
from labctl.services.monitoring import service as monitoring
from labctl.services.neo4j import Neo4jBlock, statements
from labctl.services.neo4j import service as neo4j
from labctl.services.searxng import SearxngBlock, settings
from labctl.workload import Container, Native, SecretText, Start
from tests.resolve import labs as plain
from tests.services import labs


def block(kind: type[Any], **keys: Any) -> Any:
    return kind.model_validate(frozen(keys))


def test_every_port_of_a_service_has_a_name_and_its_page_is_one_of_them() -> None:
    for name in SERVICES:
        service = load(name)
        assert service.page is None or service.page in service.ports
        assert set(service.calls) <= set(SERVICES)


def test_no_service_shows_a_secret() -> None:
    services = {
        name: {"host": "box"} for name in ("monitoring", "open-webui", "phoenix", "searxng", "neo4j", "postgres")
    }
    found = labs.lab(
        services, gateway={"keys": {"database": "postgres"}}, secrets={"generate": ("LITELLM_MASTER_KEY",)}
    )
    for workload in found.workloads:
        for name, value in workload.env.items():
            secret = any(word in name for word in ("PASSWORD", "SECRET", "_KEY", "AUTH", "DATABASE_URL"))
            plain_ok = name in {"GF_AUTH_ANONYMOUS_ENABLED", "POSTGRES_PASSWORD_FILE"}
            assert isinstance(value, SecretText) == secret or plain_ok, (workload.name, name)


def test_searxng_answers_json_and_counts_nobody() -> None:
    made = settings("demo", block(SearxngBlock, safe_search="strict", timeout="8 s"))
    assert made["search"] == {"safe_search": 2, "default_lang": "all", "formats": ["html", "json"]}
    assert made["server"] == {"limiter": False, "public_instance": False, "image_proxy": False}
    assert made["outgoing"] == {"request_timeout": 8.0}
    assert "secret_key" not in str(made)


def test_searxng_takes_what_it_is_given() -> None:
    own = {"server": {"image_proxy": True}, "ui": {"default_theme": "simple"}}
    made = settings("demo", block(SearxngBlock, engines=["duckduckgo", "wikipedia"], settings=own))
    assert made["use_default_settings"] == {"engines": {"keep_only": ["duckduckgo", "wikipedia"]}}
    assert made["server"]["image_proxy"] is True
    assert (made["server"]["limiter"], made["ui"]["default_theme"]) == (False, "simple")


def test_searxngs_file_is_yaml_with_known_sections() -> None:
    text = labs.file(labs.lab({"searxng": {"host": "box"}}), "searxng", "settings.yml").content
    # searx/settings.yml of 2026.9.13
    assert set(yaml.safe_load(text)) <= {
        "use_default_settings",
        "general",
        "search",
        "server",
        "outgoing",
        "ui",
        "engines",
    }


SCHEMA: dict[str, Any] = {
    "unique": [{"label": "Document", "properties": "id"}, {"label": "Chunk", "properties": ["document", "number"]}],
    "indexes": [{"label": "Document", "properties": "created"}],
    "full_text": [{"label": "Chunk", "properties": "text"}],
    "vectors": [{"label": "Chunk", "dimensions": 1024}],
}


def test_neo4js_schema_in_its_own_words() -> None:
    made = list(statements(block(Neo4jBlock, schema=SCHEMA).labels))
    new = "IF NOT EXISTS"
    config = "OPTIONS {indexConfig: {`vector.dimensions`: 1024, `vector.similarity_function`: 'cosine'}}"
    assert made == [
        "CREATE CONSTRAINT document_id_unique IF NOT EXISTS FOR (n:Document) REQUIRE (n.id) IS UNIQUE",
        f"CREATE CONSTRAINT chunk_document_number_unique {new} FOR (n:Chunk) REQUIRE (n.document, n.number) IS UNIQUE",
        "CREATE INDEX document_created_index IF NOT EXISTS FOR (n:Document) ON (n.created)",
        "CREATE FULLTEXT INDEX chunk_text_text IF NOT EXISTS FOR (n:Chunk) ON EACH [n.text]",
        f"CREATE VECTOR INDEX chunk_embedding_vector {new} FOR (n:Chunk) ON n.embedding {config}",
    ]


def test_the_schema_is_a_task_that_runs_when_it_changed() -> None:
    found = labs.lab({"neo4j": {"host": "box", "schema": frozen(SCHEMA)}})
    task = labs.of(found, "neo4j-schema")
    assert (task.start, task.after) == (Start.ONCE, ("neo4j",))
    assert labs.file(found, "neo4j-schema", "schema.cypher").content.count(";\n") == 5
    units = {u.name: u.fingerprint for u in found.tree.units}
    more = {**SCHEMA, "indexes": [*SCHEMA["indexes"], {"label": "Chunk", "properties": "number"}]}
    again = {u.name: u.fingerprint for u in labs.lab({"neo4j": {"host": "box", "schema": frozen(more)}}).tree.units}
    assert units["neo4j"] == again["neo4j"]
    assert units["neo4j-schema"] != again["neo4j-schema"]


def test_no_schema_is_no_task() -> None:
    found = labs.lab({"neo4j": {"host": "box"}})
    assert [w.name for w in found.workloads if w.origin == ("services", "neo4j")] == ["neo4j"]


@pytest.mark.parametrize("word", ["a b", "x`) DETACH DELETE n //", "", "1st"])
def test_words_that_would_break_cypher_are_refused(word: str) -> None:
    with pytest.raises(ValidationError):
        block(Neo4jBlock, schema={"unique": [{"label": word, "properties": "id"}]})


def test_a_limit_below_what_neo4j_takes_at_once() -> None:
    small = block(Neo4jBlock, host="box", heap="2 GiB", page_cache="1 GiB", memory_limit="2 GiB")
    assert [(d.code, d.path) for d in neo4j.check("graph", small)] == [
        ("LAB150", ("services", "graph", "memory_limit"))
    ]
    assert not list(neo4j.check("graph", block(Neo4jBlock, host="box", memory_limit="2 GiB")))


def test_keys_of_one_service_do_not_belong_into_the_bundle() -> None:
    options = block(monitoring.options, host="box", port=3000)
    assert [(d.code, d.path) for d in monitoring.check("monitoring", options)] == [
        ("LAB151", ("services", "monitoring", "port"))
    ]


def test_data_in_two_places_is_refused() -> None:
    found = plain.written(
        plain.lab(
            {"chat": labs.CHAT}, labs.hosts("compose", "compose"), services={"grafana": {"hosts": ("box", "box1")}}
        )
    )
    assert plain.codes(found) == ["LAB138"]


def test_a_database_that_is_none() -> None:
    found = plain.written(
        plain.lab(
            {"chat": labs.CHAT},
            labs.hosts("compose"),
            services={"postgres": {"host": "box"}, "phoenix": {"host": "box", "database": "postgre"}},
        )
    )
    (problem,) = [d for d in found.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB136", ("services", "phoenix", "database"))


def test_keys_reach_programs_through_memory_and_never_through_arguments() -> None:
    prometheus = labs.of(labs.lab({"prometheus": {"host": "box"}}), "prometheus")
    for form in prometheus.forms:
        assert isinstance(form, Container | Native)
        words = " ".join(form.args)
        assert 'printf %s "$GATEWAY_KEY" > "$1"' in words
        assert "/dev/shm/labctl-test-prometheus" in words
    assert isinstance(prometheus.env["GATEWAY_KEY"], SecretText)


def test_retention_and_room_are_what_lab_yaml_says() -> None:
    found = labs.lab({"monitoring": {"host": "box", "retention": "10 d", "storage": "10 GiB"}})
    prometheus = labs.of(found, "prometheus")
    form = prometheus.forms[0]
    assert isinstance(form, Container)
    assert "--storage.tsdb.retention.time=864000s" in form.args
    assert "--storage.tsdb.retention.size=8192MB" in form.args
    (volume,) = form.mounts
    assert (volume.source, volume.size) == ("prometheus-data", 10 << 30)


def test_data_of_a_local_program_is_known_by_its_folder() -> None:
    found = labs.lab({"monitoring": {"host": "box"}})
    for name in ("prometheus", "alertmanager"):
        (native,) = [f for f in labs.of(found, name).forms if isinstance(f, Native)]
        conf = f'[program:{name}]\nenvironment=A="1",LABCTL_DATA="{native.env["LABCTL_DATA"]}"\n'
        read = SupervisorConf.read(conf.encode(), "/home/lab", "supervisord.conf")
        assert read.data == (f"/home/lab/{name}-data",)
    evil = SupervisorConf.read(b'[program:x]\nenvironment=LABCTL_DATA="../../etc"\n', "/home/lab", "supervisord.conf")
    assert evil.data == ()
