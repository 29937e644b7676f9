"""pydantic's errors in plain words: one diagnostic per fault, at the place of the fault."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from labctl.diagnostics import At, Diagnostic, DocPath
from labctl.model.base import Block, Duration, Name, PortNumber, Positive, Rate, Size
from labctl.model.fields import OneOrMany, conflict
from labctl.model.lab import frozen
from labctl.model.problems import from_pydantic
from labctl.workload import Task
from tests.document.marks import fault, read


class Gpu(Block):
    """A card."""

    model: Annotated[str, Field(description="the card", examples=["RTX 3090"])]
    count: Positive = 1


class Declared(Block):
    """A stated budget."""

    declared: Size


class Place(Block):
    """Where something runs."""

    host: Name
    gpus: Literal["all", "none"] | tuple[int | Annotated[str, Field(pattern="^GPU-")], ...] = "none"


class Everything(Block):
    """One field of every shape that the schema uses."""

    flag: bool = False
    whole: int = 0
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    text: str = ""
    gpus: tuple[Gpu, ...] = ()
    vram: Size | Declared | None = None
    timeout: Duration | None = None
    rate: Rate | None = None
    port: PortNumber | None = None
    on: OneOrMany[Place] = ()
    mode: Literal["always", "on-demand"] = "always"
    task: Annotated[Task, Field(strict=False)] = Task.CHAT
    env: dict[Name, str | Declared] = Field(default={})
    pair: Annotated[tuple[str, ...], Field(min_length=2)] = ("a", "b")
    source: Annotated[str, Field(alias="from")] = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.whole and self.text:
            conflict("both `whole` and `text` are given", "keep one of them")
        return self


def diagnose(data: Any, prefix: DocPath = ()) -> tuple[Diagnostic, ...]:
    try:
        Everything.model_validate(frozen(data))
    except ValidationError as error:
        return from_pydantic(error.errors(include_url=False), prefix, Everything)
    return ()


def found(text: str) -> list[tuple[str, str, str]]:
    """Return the code, the marked text and the summary of everything wrong with a block."""
    document = read(text)
    located = document.locate_all(diagnose(document.data))
    return [(d.code, fault(d)[3], d.summary) for d in located]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flag: yes", ("LAB022", "yes", "`flag` must be true or false, not the text `yes`")),
        ("flag: 1", ("LAB022", "1", "`flag` must be true or false, not the number 1")),
        ("whole: '8'", ("LAB022", "'8'", "`whole` must be a whole number, not the text `8`")),
        ("whole: 1.5", ("LAB022", "1.5", "`whole` must be a whole number, not the number 1.5")),
        ("whole: true", ("LAB022", "true", "`whole` must be a whole number, not `true`")),
        ("whole:", ("LAB022", "whole", "`whole` must be a whole number, not nothing")),
        ("ratio: lots", ("LAB022", "lots", "`ratio` must be a number, not the text `lots`")),
        ("ratio: 0", ("LAB025", "0", "`ratio` is `0`; it must be more than 0.0")),
        ("ratio: 2", ("LAB025", "2", "`ratio` is `2`; it must be at most 1.0")),
        ("text: 5", ("LAB022", "5", "`text` must be text, not the number 5")),
        ("text: [a]", ("LAB022", "[a]", "`text` must be text, not a list")),
        ("gpus: {model: x}", ("LAB022", "{model: x}", "`gpus` must be a list, not a mapping")),
        ("gpus: [x]", ("LAB022", "x", "entry 1 of `gpus` must be a mapping, not the text `x`")),
        ("gpus: [{count: 1}]", ("LAB020", "{count: 1}", "`model` is missing in entry 1 of `gpus`")),
        ("gpus: [{model: a, cuont: 2}]", ("LAB021", "cuont", "unknown key `cuont` in entry 1 of `gpus`")),
        ("gpus: [{modle: a}]", ("LAB021", "modle", "unknown key `modle` in entry 1 of `gpus`")),
        ("gpus: [{model: a, count: 0}]", ("LAB025", "0", "`count` is `0`; it must be at least 1")),
        ("pots: 1", ("LAB021", "pots", "unknown key `pots`")),
        ("port: 70000", ("LAB025", "70000", "`port` is `70000`; it must be at most 65535")),
        (
            "timeout: 5 eons",
            ("LAB023", "5 eons", "`timeout`: `eons` in `5 eons` is not a unit of duration"),
        ),
        ("timeout: 5", ("LAB023", "5", "`timeout`: `5` has no unit")),
        ("timeout: [5 s]", ("LAB022", "[5 s]", "`timeout` must be a quantity such as `60 s`, not a list")),
        ("rate: true", ("LAB022", "true", "`rate` must be a quantity such as `45 rpm`, not `true`")),
        ("vram: 5 Gib", ("LAB023", "5 Gib", "`vram`: `Gib` in `5 Gib` is not a unit of size")),
        ("vram: 5", ("LAB023", "5", "`vram`: `5` has no unit")),
        ("vram: {declared: 4}", ("LAB023", "4", "`declared`: `4` has no unit")),
        ("vram: {declard: 4 GiB}", ("LAB021", "declard", "unknown key `declard` in `vram`")),
        ("vram: {}", ("LAB020", "vram", "`declared` is missing in `vram`")),
        ("vram: [1]", ("LAB022", "[1]", "`vram` must be a quantity such as `24 GiB` or a mapping, not a list")),
        ("mode: alway", ("LAB024", "alway", "`mode` cannot be `alway`")),
        ("mode: 5", ("LAB024", "5", "`mode` cannot be `5`")),
        ("mode: [always]", ("LAB024", "[always]", "`mode` cannot be a list")),
        ("task: chatt", ("LAB024", "chatt", "`task` cannot be `chatt`")),
        ("on: {hots: ash}", ("LAB021", "hots", "unknown key `hots` in entry 1 of `on`")),
        ("on: {host: Ash!}", ("LAB026", "Ash!", "`Ash!` is not a valid value for `host`")),
        ("on: [{host: a}, {host: b, gpus: al}]", ("LAB024", "al", "`gpus` cannot be `al`")),
        (
            "on: {host: a, gpus: 5}",
            ("LAB022", "5", "`gpus` must be `all`, `none` or a list, not the number 5"),
        ),
        (
            "on: {host: a, gpus: [0, 1.5]}",
            ("LAB022", "1.5", "entry 2 of `gpus` must be a whole number or text, not the number 1.5"),
        ),
        ("on: {host: a, gpus: [x]}", ("LAB026", "x", "`x` is not a valid value for entry 1 of `gpus`")),
        ("env: {A_B: x}", ("LAB026", "A_B", "`A_B` is not a valid name")),
        ("env: {a: 5}", ("LAB022", "5", "`a` must be text or a mapping, not the number 5")),
        ("env: {str: {declared: x}}", ("LAB023", "x", "`declared`: `x` is not a size")),
        ("pair: [a]", ("LAB025", "[a]", "`pair` is a list; it must have 2 or more entries")),
        ("form: x", ("LAB021", "form", "unknown key `form`")),
        ("whole: 1\ntext: a", ("LAB027", "whole", "both `whole` and `text` are given")),
    ],
)
def test_one_fault_one_diagnostic(text: str, expected: tuple[str, str, str]) -> None:
    assert found(text) == [expected]


def test_all_faults_at_once() -> None:
    text = "flag: yes\nport: 0\nvram: [1]\ngpus: [{cuont: 1, model: 5}]\nnope: 1\n"
    assert [code for code, _, _ in found(text)] == ["LAB022", "LAB022", "LAB021", "LAB022", "LAB025", "LAB021"]


@pytest.mark.parametrize(
    ("data", "label", "hint"),
    [
        ({"flag": "off"}, "", "write `false`: YAML 1.2 reads `off` as text"),
        ({"whole": "1_000"}, "", "write `1000` without quotes or separators"),
        ({"whole": None}, "", "write a value behind the colon, or delete the key"),
        ({"text": True}, "", 'put it in quotes: `"true"`'),
        ({"gpus": [{}]}, "", "add `model: RTX 3090` (the card)"),
        ({"gpus": [{"model": "a", "cuont": 2}]}, "did you mean `count`?", "known keys are `model`, `count`"),
        ({"gpus": [{"model": "a", "count:2": None}]}, "", "write `count: 2`, with a space behind the colon"),
        ({"source": 1}, "", None),
        ({"form": 1}, "did you mean `from`?", None),
        ({"mode": "alway"}, "did you mean `always`?", "choices are `always`, `on-demand`"),
        ({"timeout": "5"}, "", "write for example `60 s`"),
        ({"whole": 1, "text": "a"}, "", "keep one of them"),
    ],
)
def test_hints(data: dict[str, Any], label: str, hint: str | None) -> None:
    (diagnostic,) = diagnose(data)
    assert diagnostic.label == label
    if hint is not None:
        assert diagnostic.hint == hint


def test_paths_start_with_the_prefix() -> None:
    missing, unknown = diagnose({"gpus": [{"count": 1}], "nope": 1}, ("deployments", "chat"))
    assert (missing.path, missing.at) == (("deployments", "chat", "gpus", 0), At.KEY)
    assert (unknown.path, unknown.at) == (("deployments", "chat", "nope"), At.KEY)
    assert unknown.summary == "unknown key `nope` in `chat`"


def test_nothing_of_pydantic_shows() -> None:
    words = ("input", "extra inputs", "field required", "should be", "valid ")
    for text in ("flag: 5", "gpus: 1", "vram: [1]", "mode: x", "port: 0", "env: 1", "on: 1", "task: x", "ratio: x"):
        for diagnostic in diagnose(read(text).data):
            assert not any(word in diagnostic.summary.lower() for word in words), diagnostic.summary
