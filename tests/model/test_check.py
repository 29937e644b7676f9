"""References and forms that the schema's types cannot see."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.diagnostics import Diagnostic
from labctl.model.check import check_references
from labctl.model.lab import read_lab
from labctl.registry import Registry
from tests.resolve import labs

UUIDS = ("GPU-aaaa", "GPU-bbbb", "GPU-cccc")


def problems(on: dict[str, Any], **keys: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    hosts = {"box": {**labs.box(), "gpus": ({"model": "RTX 3090", "count": 3, "uuid": UUIDS},)}, "cpu": labs.box()}
    data = labs.lab({"one": labs.llama(on=on)}, hosts, gateway={"engine": "litellm", "host": "cpu"}, **keys)
    return [(d.code, d.path or ()) for d in check_references(labs.valid(data))]


GPUS = ("deployments", "one", "on", "gpus")


@pytest.mark.parametrize(
    ("on", "found"),
    [
        ({"host": "box", "gpus": (0, "GPU-bbbb")}, []),
        ({"host": "box", "gpus": "all"}, []),
        ({"host": "cpu"}, []),
        ({"host": "box", "gpus": (0, 0)}, [("LAB054", (*GPUS, 1))]),
        ({"host": "box", "gpus": (1, "GPU-bbbb")}, [("LAB054", (*GPUS, 1))]),
        ({"host": "box", "gpus": (3,)}, [("LAB052", (*GPUS, 0))]),
        ({"host": "box", "gpus": (-1,)}, [("LAB052", (*GPUS, 0))]),
        ({"host": "box", "gpus": ("GPU-dddd",)}, [("LAB052", (*GPUS, 0))]),
        ({"host": "cpu", "gpus": "all"}, [("LAB052", GPUS)]),
        ({"host": "box", "gpus": "all", "gpus_per_server": 2}, [("LAB027", GPUS)]),
        ({"host": "box", "gpus": (0, 1), "gpus_per_server": 2}, []),
        ({"host": "bax", "gpus": (0,)}, [("LAB050", ("deployments", "one", "on", "host"))]),
    ],
    ids=str,
)
def test_cards(on: dict[str, Any], found: list[tuple[str, tuple[str | int, ...]]]) -> None:
    assert problems(on) == found


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ({"g": {"exclusive": ("one", "two")}}, ["LAB053"]),
        ({"g": {"exclusive": ("one", "one")}}, ["LAB054"]),
        ({"g": {"exclusive": ("one", "two"), "active": "three"}}, ["LAB053", "LAB053"]),
    ],
    ids=str,
)
def test_groups(groups: dict[str, Any], found: list[str]) -> None:
    assert [code for code, _ in problems({"host": "cpu"}, groups=groups)] == found


def read(**sections: Any) -> list[Diagnostic]:
    return list(read_lab({**labs.lab({}), **sections}, Registry()).diagnostics)


@pytest.mark.parametrize(
    "gguf",
    [
        "model.gguf",
        "folder/model.gguf",
        "/srv/model.gguf",
        "hf://o/r/a/b.gguf",
        "https://h/a/../m.gguf",
        "file:///srv/m.gguf",
    ],
)
def test_places_of_gguf_files(gguf: str) -> None:
    assert read(models={"m": {"gguf": gguf}}) == []


@pytest.mark.parametrize(
    "gguf",
    [
        "../model.gguf",
        "./model.gguf",
        "a//b.gguf",
        "hf://o/r/../b.gguf",
        "hf://o/r//b.gguf",
        "hf://o/b.gguf",
        "ftp://x/m.gguf",
    ],
)
def test_paths_that_leave_the_models_folder(gguf: str) -> None:
    assert [(d.code, d.path) for d in read(models={"m": {"gguf": gguf}})] == [("LAB026", ("models", "m", "gguf"))]


@pytest.mark.parametrize("folder", ["~/models", "models", "/", "/srv/../models", ""])
def test_folders_that_cannot_be_used(folder: str) -> None:
    hosts = {"box": labs.box(models=folder)}
    assert [(d.code, d.path) for d in read(hosts=hosts)] == [("LAB026", ("hosts", "box", "models"))]


def test_folders_are_written_in_one_way() -> None:
    data = labs.lab({}, {"box": labs.box(models="/srv//models/./big/")})
    assert labs.valid(data).hosts["box"].models == "/srv/models/big"
