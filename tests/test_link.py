"""Links: every URL that the gateway is given is one that its server really answers at, from the gateway's host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.artefact import File
from labctl.registry import Registry
from labctl.render import Rendered
from labctl.workload import Port
from tests.resolve import labs

NATIVE = {"model": "tiny", "engine": "llama.cpp", "flavour": "embedded", "context": 512}
CONTAINER = {"engine": "container", "image": "example/server:1", "listens": 9000}


def host(target: str, address: str, bind: str | None) -> dict[str, Any]:
    return {"target": target, "address": address, "memory": "64 GiB"} | ({"bind": bind} if bind else {})


def deployment(target: str, place: str, port: int | None) -> dict[str, Any]:
    specs: dict[str, dict[str, Any]] = {
        "compose": CONTAINER,
        "local": NATIVE,
        "systemd": {"engine": "command", "program": "/usr/bin/serve"},
    }
    return {**specs[target], "on": {"host": place}, "serves": ("chat",)} | ({"port": port} if port else {})


def gateway_urls(found: Rendered) -> list[str]:
    (config,) = [f for f in found.tree.artefacts if isinstance(f, File) and f.path.endswith("gateway/config.yaml")]
    entries = yaml.safe_load(config.content)["model_list"]
    return [entry["litellm_params"]["api_base"] for entry in entries]


def answers(found: Rendered, gateway: str, url: str) -> bool:
    """Whether a server of the lab listens where the URL leads, seen from the gateway's host."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    same_network = Registry().target(found.placed.lab.hosts[gateway].target)
    for workload in found.workloads:
        for port in workload.ports:
            by_name = same_network is not None and same_network.by_name and workload.host == gateway
            if by_name and (parts.hostname, parts.port) == (workload.name, port.listen):
                return True
            if (
                not by_name
                and parts.port == port.published
                and _heard(found, gateway, workload.host, port, parts.hostname)
            ):
                return True
    return False


def _heard(found: Rendered, gateway: str, provider: str, port: Port, dialled: str) -> bool:
    """Whether a connection from the gateway to this address meets the port's own address."""
    place = found.placed.lab.hosts[provider]
    loopback = dialled in {"localhost", "127.0.0.1"}
    if loopback and gateway != provider:
        return False
    if port.bind == "0.0.0.0":  # noqa: S104
        return loopback or dialled in {place.address, place.bind}
    return dialled == port.bind


TARGETS = st.sampled_from(["compose", "systemd", "local"])
ADDRESSES = st.sampled_from(["10.0.0.%d", "h%d.lan"])
BINDS = st.sampled_from([None, "172.16.0.%d", "0.0.0.0"])  # noqa: S104


@st.composite
def several_hosts(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 3))
    targets = [draw(TARGETS) for _ in range(count)]
    targets[0] = draw(st.sampled_from(["compose", "local"]))
    hosts: dict[str, Any] = {}
    for i, target in enumerate(targets):
        bind = draw(BINDS)
        address = draw(ADDRESSES) % i
        hosts[f"h{i}"] = host(target, address, bind % i if bind and "%" in bind else bind)
    deployments = {
        f"d{i}": deployment(target, f"h{i}", draw(st.sampled_from([None, 8080]))) for i, target in enumerate(targets)
    }
    block = {"engine": "litellm", "host": "h0"}
    return labs.lab(deployments, hosts, gateway=block)


@settings(max_examples=40, deadline=None)
@given(several_hosts())
def test_every_link_is_answered(data: dict[str, Any]) -> None:
    found = labs.written(data)
    if "LAB080" in labs.codes(found):
        return
    assert found.ok, labs.errors(found.diagnostics)
    assert found.value is not None
    urls = gateway_urls(found.value)
    assert len(urls) == len(data["deployments"])
    for url in urls:
        assert answers(found.value, "h0", url), (url, [(w.name, w.host, w.ports) for w in found.value.workloads])


def two(**back: Any) -> dict[str, Any]:
    hosts = {
        "front": labs.box(address="10.0.0.1"),
        "back": {"target": "compose", "memory": "64 GiB", **back},
    }
    return labs.lab(
        {"chat": {**CONTAINER, "on": {"host": "back"}, "serves": ("chat",)}},
        hosts,
        gateway={"engine": "litellm", "host": "front"},
    )


@pytest.mark.parametrize("back", [{}, {"address": "127.0.0.1"}, {"address": "10.0.0.2", "bind": "127.0.0.1"}])
def test_a_host_that_only_its_own_machine_reaches(back: Mapping[str, Any]) -> None:
    found = labs.written(two(**back))
    (problem,) = [d for d in found.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB139", ("hosts", "back"))


@pytest.mark.parametrize(
    ("back", "url"),
    [
        ({"address": "10.0.0.2"}, "http://10.0.0.2:"),
        ({"address": "10.0.0.2", "bind": "100.64.0.2"}, "http://100.64.0.2:"),
        ({"address": "back.lan"}, "http://back.lan:"),
        ({"address": "fd00::2"}, "http://[fd00::2]:"),
    ],
)
def test_the_address_that_a_gateway_dials(back: Mapping[str, Any], url: str) -> None:
    (found,) = gateway_urls(labs.rendered(two(**back)))
    assert found.startswith(url)


@pytest.mark.parametrize(
    ("where", "keys", "host", "port"),
    [("front", {}, "postgres", 5432), ("back", {"port": 5433}, "10.0.0.2", 5433), ("back", {}, "10.0.0.2", None)],
)
def test_the_database_of_a_gateway(where: str, keys: Mapping[str, Any], host: str, port: int | None) -> None:
    data = two(address="10.0.0.2")
    data |= {
        "services": {"postgres": {"host": where, **keys}},
        "gateway": {**data["gateway"], "keys": {"database": "postgres"}},
    }
    found = labs.rendered(data)
    (gateway,) = [w for w in found.workloads if w.name == "gateway"]
    (database,) = [w for w in found.workloads if w.name == "postgres"]
    texts = [v for v in gateway.env.values() if not isinstance(v, str)]
    (url,) = [t for t in texts if str(t.parts[0]).startswith("postgresql://")]
    reached = f"@{host}:{port or database.ports[0].published}/litellm"
    assert url.parts[-1] == reached
    assert (database.ports[0].published is None) == (where == "front")


def test_a_database_that_is_bound_too_narrowly() -> None:
    data = two(address="10.0.0.2")
    data |= {
        "services": {"postgres": {"host": "back", "bind": "127.0.0.1"}},
        "gateway": {**data["gateway"], "keys": {"database": "postgres"}},
    }
    (problem,) = [d for d in labs.written(data).diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB139", ("services", "postgres", "bind"))


@pytest.mark.parametrize(
    ("keys", "url"),
    [
        ({}, "http://10.0.0.1:4000"),
        ({"bind": "0.0.0.0"}, "http://10.0.0.1:4000"),  # noqa: S104
        ({"bind": "127.0.0.1", "port": 4001}, "http://127.0.0.1:4001"),
    ],
)
def test_where_people_reach_the_gateway(keys: Mapping[str, Any], url: str) -> None:
    data = two(address="10.0.0.2")
    found = labs.rendered({**data, "gateway": {**data["gateway"], **keys}})
    assert found.gateway is not None
    assert found.gateway.url == url
