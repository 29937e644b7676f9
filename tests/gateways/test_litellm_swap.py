"""LiteLLM with labctl's own gateway behind it, on every host that has on-demand servers."""

from __future__ import annotations

import json
from typing import Any

import yaml

from labctl.artefact import File, SecretFile
from labctl.render import Rendered
from tests.resolve import labs


def lab(**swap: Any) -> dict[str, Any]:
    """Return a lab with swapped servers on two hosts, LiteLLM on the first, and one server that always runs."""
    common = {"start": "on-demand", "vram": {"declared": "8 GiB"}}
    made = {
        f"{host}-{i}": labs.llama(serves=(f"{host}-{i}", "any"), on={"host": host, "gpus": (0,)}, **common)
        for host in ("box", "far")
        for i in range(2)
    }
    made["always"] = labs.llama(serves=("always",), on={"host": "far", "gpus": (0,)})
    return labs.lab(
        made,
        {"box": labs.box("RTX 3090"), "far": labs.box("RTX 3090", address="192.168.1.6")},
        gateway={"engine": "litellm", "host": "box", "keys": {"database": "none"}, "swap": swap},
        groups={"one": {"swap": ("box-0", "box-1")}, "two": {"swap": ("far-0", "far-1")}},
    )


def file(found: Rendered, host: str, end: str) -> Any:
    (content,) = [
        a.content for a in found.tree.artefacts if isinstance(a, File) and a.host == host and a.path.endswith(end)
    ]
    return yaml.safe_load(content) if end.endswith("yaml") else json.loads(content)


def routes(found: Rendered) -> dict[str, list[dict[str, Any]]]:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for entry in file(found, "box", "gateway/config.yaml")["model_list"]:
        by_name.setdefault(entry["model_name"], []).append(entry["litellm_params"])
    return by_name


def test_each_public_name_goes_to_the_gateway_that_loads_it() -> None:
    found = labs.rendered(lab(key="SWAP_KEY"))
    assert {w.name for w in found.workloads if w.name.startswith("gateway")} == {
        "gateway",
        "gateway-box",
        "gateway-far",
    }
    asked = routes(found)
    behind = {name: {p["api_base"] for p in params} for name, params in asked.items()}
    assert behind == {
        "box-0": {"http://gateway-box:8888/v1"},
        "box-1": {"http://gateway-box:8888/v1"},
        "far-0": {"http://192.168.1.6:8888/v1"},
        "far-1": {"http://192.168.1.6:8888/v1"},
        "any": {"http://gateway-box:8888/v1", "http://192.168.1.6:8888/v1"},
        "always": {behind["always"].copy().pop()},
    }
    assert "8888" not in behind["always"].copy().pop()
    assert {p["model"] for p in asked["any"]} == {"openai/any"}, "asked for what the client asked for"
    keys = {name: {p["api_key"] for p in params} for name, params in asked.items()}
    assert keys["far-0"] == {"os.environ/LABCTL_SWAP_KEY"}
    assert keys["always"] == {"none"}
    (secrets,) = [a for a in found.tree.items() if isinstance(a, SecretFile) and a.path.endswith("secrets/gateway.env")]
    assert secrets.entries["LABCTL_SWAP_KEY"].names == ("SWAP_KEY",)


def test_the_one_behind_knows_every_server_of_its_host() -> None:
    """Also those that always run: they take their part of the cards."""
    found = labs.rendered(lab(idle="30 min", pin=("far-0",)))
    told = file(found, "far", "gateway-far/gateway.json")
    assert {b["name"]: (b["pinned"], b["driver"]["kind"]) for b in told["backends"]} == {
        "far-0": (True, "docker"),
        "far-1": (False, "docker"),
        "always": (False, "docker"),
    }
    assert {b["name"]: b["ttl"] for b in told["backends"]} == {"far-0": 1800, "far-1": 1800, "always": None}
    compose = {host: file(found, host, "compose.yaml")["services"] for host in ("box", "far")}
    assert compose["box"]["gateway-box"]["ports"] == ["127.0.0.1:8888:8888"], "nobody else asks it"
    assert compose["far"]["gateway-far"]["ports"] == ["192.168.1.6:8888:8888"]
    assert "ports" not in compose["far"]["far-0"], "only the gateway beside it asks it"
    socket = "/var/run/docker.sock"
    holders = {n for c in compose.values() for n, s in c.items() if socket in json.dumps(s)}
    assert holders == {"gateway-box", "gateway-far"}


def test_names_that_the_block_gets_wrong() -> None:
    found = labs.written(lab(pin=("nobody",)))
    assert [(p.code, p.path) for p in found.diagnostics if p.is_error] == [("LAB053", ("gateway", "swap", "pin", 0))]


def test_a_host_that_only_its_own_machine_reaches() -> None:
    made = lab()
    made["hosts"]["far"]["address"] = "localhost"
    assert "LAB139" in labs.codes(labs.written(made))
