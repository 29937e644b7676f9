"""What a lab with llama.cpp's router renders to: presets, a count, and what is lost by counting."""

from __future__ import annotations

import configparser
import json
from itertools import pairwise
from typing import Any

import pytest
import yaml

from labctl.artefact import File, SecretFile
from labctl.diagnostics import Severity
from labctl.render import Rendered
from tests.gateways.swap_asks import fits, subsets
from tests.resolve import labs


def lab(sizes: dict[str, int], **gateway: Any) -> dict[str, Any]:
    """Return a lab of deployments with these sizes in GiB on one card of 24, all run by the router."""
    made = {
        name: labs.llama(
            serves=(name, f"{name}:8b"),
            on={"host": "box", "gpus": (1,)},
            start="on-demand",
            flavour="cuda12",
            vram={"declared": f"{size} GiB"},
        )
        for name, size in sizes.items()
    }
    block = {"engine": "llama-router", "keys": {"master": "ROUTER_KEY"}, **gateway}
    groups = {"gpu": {"swap": tuple(made)}} if len(made) > 1 else {}
    return labs.lab(made, {"box": labs.box("RTX 3090", "RTX 3090")}, gateway=block, groups=groups)


def presets(found: Rendered) -> configparser.ConfigParser:
    (file,) = [a for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith("gateway/presets.ini")]
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=(";",))
    parser.read_string(file.content.decode())
    return parser


def service(found: Rendered) -> dict[str, Any]:
    (file,) = [a for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith("compose.yaml")]
    services: dict[str, Any] = yaml.safe_load(file.content)["services"]
    assert set(services) == {"gateway"}
    gateway: dict[str, Any] = services["gateway"]
    return gateway


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_presets_are_the_engines_arguments() -> None:
    """Every option of the server's own command line, but those that the router decides itself."""
    made = lab({"a": 8, "b": 6}, preload=("a",), idle="30 min")
    found = labs.rendered(made)
    own = labs.rendered({**made, "gateway": {"engine": "builtin"}})
    parser = presets(found)
    assert parser.sections() == ["a", "b"]
    for name in parser.sections():
        section = dict(parser[name])
        assert section.pop("alias") == f"{name}:8b"
        assert section.pop("device") == "CUDA0", "the first of the cards that the router sees"
        assert section.pop("load-on-startup", None) == ("true" if name == "a" else None)
        (workload,) = [w for w in own.workloads if w.name == name]
        words = [*workload.forms[0].args, "--"]
        for option, following in pairwise(words):
            if option.startswith("--") and option not in {"--host", "--port", "--alias", "--model", "--"}:
                assert section.pop(option[2:]) == ("true" if following.startswith("--") else following)
        assert section.pop("model").startswith("/var/lib/labctl/models/")
        assert section == {}
    words = service(found)["command"]
    assert after(words, "--sleep-idle-seconds") == "1800"
    (secrets,) = [a for a in found.tree.items() if isinstance(a, SecretFile)]
    assert secrets.entries["LLAMA_API_KEY"].names == ("ROUTER_KEY",)


def test_container_is_llama_cpps_own() -> None:
    gateway = service(labs.rendered(lab({"a": 8, "b": 6})))
    assert gateway["image"] == "ghcr.io/ggml-org/llama.cpp:server-cuda-b11459"
    (cards,) = gateway["deploy"]["resources"]["reservations"]["devices"]
    assert cards["device_ids"] == ["1"]
    assert "docker.sock" not in json.dumps(gateway)


@pytest.mark.parametrize(
    ("sizes", "number", "most"),
    [
        ({"a": 8, "b": 6, "c": 5}, 3, None),
        ({"a": 20, "b": 6, "c": 5, "d": 4}, 1, 3),
        ({"a": 11, "b": 11, "c": 2, "d": 1}, 2, 3),
        ({"a": 20}, 1, None),
    ],
)
def test_the_greatest_number_of_which_any_fit(sizes: dict[str, int], number: int, most: int | None) -> None:
    found = labs.written(lab(sizes))
    assert found.value is not None
    assert after(service(found.value)["command"], "--models-max") == str(number)
    notes = [p for p in found.diagnostics if p.severity is Severity.NOTE and p.code == "LAB226"]
    assert [f"up to {most} would fit" in p.summary for p in notes] == ([True] if most else [])
    gib = 1 << 30
    from labctl.gateways import Children  # noqa: PLC0415 - only here

    card = Children(takes={n: {"gpu": s * gib} for n, s in sizes.items()}, room={"gpu": 24 * gib - gib // 2})
    assert all(fits(some, card) for some in subsets(sizes) if len(some) <= number)


def test_too_much_at_the_start() -> None:
    made = lab({"a": 20, "b": 6, "c": 5}, preload=("b", "c"))
    assert "LAB223" in labs.codes(labs.written(made))


def test_what_it_cannot_serve() -> None:
    """Servers that always run, names of two models, values that its presets would cut."""
    made = lab({"a": 8, "b": 6})
    made["deployments"]["a"]["serves"] = ("b",)
    made["deployments"]["a"]["args"] = ("--prefix", "a;b")
    made["deployments"]["b"]["env"] = {"GGML_LOG": "1"}
    made["deployments"]["embed"] = {"model": "nomic", "engine": "llama.cpp", "on": {"host": "box", "gpus": (0,)}}
    found = labs.written(made)
    said = {(p.code, p.path) for p in found.diagnostics if p.is_error}
    assert said == {
        ("LAB222", ("deployments", "a", "args")),
        ("LAB222", ("deployments", "b", "env")),
        ("LAB222", ("deployments", "embed")),
        ("LAB225", ("deployments", "b")),
    }
