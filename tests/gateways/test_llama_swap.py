"""What a lab with llama-swap renders to, on every target that can run it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from labctl.artefact import File, Image, SecretFile
from labctl.render import Rendered
from tests.gateways.llama_swap_strict import Config, argument, read
from tests.resolve import labs


def swapped(**deployments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a lab whose deployments are all swapped, on one host with two cards, and one that runs always."""
    common = {"start": "on-demand", "flavour": "cuda12"}
    made: dict[str, Any] = {name: labs.llama(serves=(name,), **common, **keys) for name, keys in deployments.items()}
    own = {"on": {"host": "box", "gpus": (1,)}, "vram": {"declared": "3 GiB"}}
    made["embed"] = {"model": "nomic", "engine": "llama.cpp", "task": "embed", **own}
    return labs.lab(
        made,
        {"box": labs.box("RTX 3090", "RTX 3090", "RTX 3090")},
        gateway={"engine": "llama-swap", "keys": {"master": "GATEWAY_KEY"}, "idle": "30 min"},
        groups={"gpu": {"swap": tuple(deployments)}},
    )


def on(*cards: int, **keys: Any) -> dict[str, Any]:
    return {"on": {"host": "box", "gpus": cards, **keys}, "context": 8192}


def config(found: Rendered) -> Config:
    (file,) = [a for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith("gateway/config.yaml")]
    return read(file.content.decode())


def compose(found: Rendered) -> dict[str, Any]:
    (file,) = [a for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith("compose.yaml")]
    services: dict[str, Any] = yaml.safe_load(file.content)["services"]
    return services


def test_containers_of_children_are_nobodys() -> None:
    """One container, with the cards and models of all its children, and no socket of Docker's."""
    found = labs.rendered(swapped(a=on(0), b=on(0), c=on(0, 1, gpus_per_server=2)))
    services = compose(found)
    assert set(services) == {"gateway", "embed"}
    gateway = services["gateway"]
    (cards,) = gateway["deploy"]["resources"]["reservations"]["devices"]
    assert cards["device_ids"] == ["0", "1"]
    assert [v["source"] for v in gateway["volumes"]] == ["/var/lib/labctl/models", "./gateway/config.yaml"]
    (secrets,) = [a for a in found.tree.artefacts if isinstance(a, SecretFile)]
    assert secrets.entries["LABCTL_KEY_MASTER"].names == ("GATEWAY_KEY",)
    made = [a for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith("Dockerfile")]
    assert [line for line in made[0].content.decode().splitlines() if line.startswith("FROM")] == [
        "FROM ghcr.io/mostlygeek/llama-swap:v256-cpu-b11011 AS swap",
        "FROM ghcr.io/ggml-org/llama.cpp:server-cuda-b11459",
    ]
    assert any(isinstance(a, Image) and a.reference == gateway["image"] for a in found.tree.items())


def test_command_lines_are_the_engines() -> None:
    """The same settings as the server's own container would have; its card by its place among those seen."""
    lab = swapped(a=on(2), b=on(1), c=on(1, 2, gpus_per_server=2))
    models = config(labs.rendered(lab)).models
    own = labs.rendered({**lab, "gateway": {"engine": "builtin"}})
    assert [argument(models[name], "--device") for name in "abc"] == ["CUDA1", "CUDA0", "CUDA0,CUDA1"]
    for name in "abc":
        words = shlex.split(models[name].cmd)
        port = argument(models[name], "--port")
        assert models[name].proxy == f"http://127.0.0.1:{port}"
        moved = {"--port": "8080", "--host": "0.0.0.0", "--model": f"/models/{argument(models[name], '--model')[23:]}"}  # noqa: S104
        there = ["llama-server", "--device", argument(models[name], "--device")]
        assert words[:3] == there
        for option, value in moved.items():
            words[words.index(option) + 1] = value
        assert words[3:] == compose(own)[name]["command"]


def test_names() -> None:
    """A model is called as people call it; names of several servers, and those of peers, are selectors."""
    lab = swapped(a=on(0), b=on(0))
    lab["deployments"]["a"]["serves"] = ("chat", "chat:8b", "any")
    lab["deployments"]["b"]["serves"] = ("any",)
    found = config(labs.rendered(lab))
    assert {name: model.aliases for name, model in found.models.items()} == {"chat": ["chat:8b"], "any@b": []}
    assert found.models["any@b"].unlisted
    assert found.peers["embed"].proxy == "http://embed:8080"
    assert found.selectors["nomic"].targets == ["embed/nomic"]
    assert found.selectors["any"].targets == ["chat", "any@b"]
    assert found.selectors["any"].strategy == "spillover", "both fit on the card"


def test_names_of_models_that_never_run_together() -> None:
    big = {"vram": {"declared": "20 GiB"}}
    lab = swapped(a=on(0) | big, b=on(0) | big)
    for name in "ab":
        lab["deployments"][name]["serves"] = ("any",)
    assert config(labs.rendered(lab)).selectors["any"].strategy == "warm"


def test_times() -> None:
    """The longest start-up counts for all; what is pinned has no end; who may go first is who is back first."""
    lab = swapped(a=on(0) | {"startup": "90 s"}, b=on(0) | {"startup": "300 s", "timeout": "20 min"})
    lab["gateway"] |= {"pin": ("a",), "preload": ("b",), "requests": 7, "loading": True}
    found = config(labs.rendered(lab))
    assert (found.healthCheckTimeout, found.globalTTL, found.sendLoadingState) == (300, 1800, True)
    assert (found.models["a"].ttl, found.models["b"].ttl) == (0, -1)
    assert found.models["b"].timeouts.responseHeader == 1200
    assert found.models["a"].concurrencyLimit == 7
    assert found.captureBuffer == 0, "nobody asked for prompts to be kept"
    assert found.hooks is not None
    assert found.hooks.on_startup.preload == ["a", "b"]
    assert found.routing is not None
    matrix = found.routing.router.settings.matrix
    assert [matrix.evict_costs[m] for m in sorted(matrix.vars)] == [90, 300]


def test_what_runs_always_has_its_share() -> None:
    """The room of a card is what the servers leave that are not llama-swap's."""
    small = {"vram": {"declared": "11 GiB"}}
    alone = config(labs.rendered(swapped(a=on(0) | small, b=on(0) | small)))
    beside = config(labs.rendered(swapped(a=on(1) | small, b=on(1) | small)))
    assert [list(c.routing.router.settings.matrix.sets.values()) for c in (alone, beside) if c.routing] == [
        ["m1 & m2"],
        ["(m1 | m2)"],
    ]


@pytest.mark.parametrize("target", ["systemd", "local"])
def test_programs_of_the_host(target: str) -> None:
    lab = swapped(a=on(0), b=on(1))
    for deployment in lab["deployments"].values():
        deployment.pop("flavour", None)
    lab["hosts"]["box"]["target"] = target
    found = labs.written(lab)
    assert labs.codes(found) == []
    assert found.value is not None
    assert [w.name for w in found.value.workloads] == ["embed", "gateway"]
    assert shlex.split(config(found.value).models["a"].cmd)[0] == "llama-server"


def test_exclusive_groups_are_kept() -> None:
    lab = swapped(a=on(0), b=on(0))
    lab["groups"] = {"one": {"exclusive": ("a", "b")}}
    found = config(labs.rendered(lab))
    assert found.routing is not None
    assert list(found.routing.router.settings.matrix.sets.values()) == ["m1 | m2"]


def test_exclusive_group_with_a_member_of_another_kind() -> None:
    lab = swapped(a=on(0), b=on(0))
    lab["groups"] = {"one": {"exclusive": ("a", "embed")}}
    assert "LAB222" in labs.codes(labs.written(lab))


def test_no_children() -> None:
    """A lab where everything runs always: only peers, and nothing to route."""
    lab = swapped(a=on(0))
    lab["groups"] = {}
    del lab["deployments"]["a"]
    found = config(labs.rendered(lab))
    assert (found.models, found.routing, set(found.peers)) == ({}, None, {"embed"})


def test_too_many_combinations() -> None:
    sizes = {f"d{i}": on(0) | {"vram": {"declared": f"{500 + 7 * i * i} MiB"}} for i in range(30)}
    assert labs.codes(labs.written(swapped(**sizes))) == ["LAB224"]


def test_servers_elsewhere_are_out_of_reach() -> None:
    lab = swapped(a=on(0), b=on(0))
    lab["hosts"]["far"] = labs.box("RTX 3090", address="192.168.1.6")
    lab["deployments"]["b"]["on"] = {"host": "far", "gpus": (0,)}
    lab["gateway"]["host"] = "box"
    assert labs.codes(labs.written(lab)) == ["LAB220"]
