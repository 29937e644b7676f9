"""What the values are: YAML 1.2, from the same nodes that carry the places."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from labctl.document import parse
from tests.document.marks import faults, read

LAB = """\
# a lab
lab: p106-farm
hosts:
  ash:
    address: 192.168.0.145
    gpus: [{model: P106-100, count: 8, power_limit: 90 W}]
models:
  nomic: {gguf: hf://nomic-ai/nomic-embed-text-v1.5-GGUF/nomic.Q8_0.gguf, image: repo:5000/name:tag}
deployments:
  chat: &chat
    model: stheno
    on: {host: ash, gpus: [0, 1]}
    note: |
      two
      lines
  other: {<<: *chat, model: lumimaid}
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-3", -3),
        ("+3", 3),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.2.3", "1.2.3"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("n", "n"),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'8'", "8"),
        ('"true"', "true"),
        ("''", ""),
        ("90 W", "90 W"),
        ("hf://a/b:c", "hf://a/b:c"),
        ("[]", []),
        ("{}", {}),
        ("[a:b, c::d, 'e:f']", ["a:b", "c::d", "e:f"]),
        ('{"a":1}', {"a": 1}),
        ('"\\u2028\\ue000"', "\u2028\ue000"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    data = read(f"v: {text}\n").data
    assert data == {"v": value}
    assert type(data["v"]) is type(value)


def test_a_private_use_character_of_the_user_survives() -> None:
    assert read("v: {a: x\ue000y, b: hf://z}").data == {"v": {"a": "x\ue000y", "b": "hf://z"}}


def test_values_agree_with_ruamel() -> None:
    assert read(LAB).data == YAML(typ="safe", pure=True).load(LAB)


def test_keys_named_on_and_yes_are_text() -> None:
    assert read("on: {host: ash}\nyes: 1\n").data == {"on": {"host": "ash"}, "yes": 1}


def test_crlf_and_byte_order_mark() -> None:
    document = read("\ufefflab: x\r\nhosts:\r\n  ash: 1\r\n")
    assert document.data == {"lab": "x", "hosts": {"ash": 1}}
    span = document.span(("hosts", "ash"))
    assert span is not None
    assert (span.line, span.column, span.source) == (3, 8, "  ash: 1")


MERGES = """\
a: &a {x: 1, y: 1}
b: &b {y: 2, z: 2}
one: {<<: *a, x: 9}
late: {x: 9, <<: *a}
many: {<<: [*a, *b]}
inline: {<<: {x: 5}, y: 6}
chain: {<<: &c {<<: *a, q: 1}, r: *c}
quoted: {"<<": 1}
"""


def test_merge_keys() -> None:
    data = read(MERGES).data
    assert data["one"] == data["late"] == {"x": 9, "y": 1}
    assert data["many"] == {"x": 1, "y": 1, "z": 2}
    assert data["inline"] == {"x": 5, "y": 6}
    assert data["chain"] == {"x": 1, "y": 1, "q": 1, "r": {"x": 1, "y": 1, "q": 1}}
    assert data["quoted"] == {"<<": 1}


def test_nobody_shares_an_aliased_value() -> None:
    data = read("a: &a {x: [1]}\nb: *a\n").data
    data["b"]["x"].append(2)
    assert data["a"] == {"x": [1]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", [("LAB006", 3, 1, "a")]),
        ("8: a\n", [("LAB007", 1, 1, "8")]),
        ("{true: a, null: b}\n", [("LAB007", 1, 2, "true"), ("LAB007", 1, 11, "null")]),
        ("[a]: b\n", [("LAB007", 1, 1, "[")]),
        ("a: &x b\n*x : c\n", [("LAB007", 2, 1, "*x")]),
        ("a: !!str 1\n", [("LAB008", 1, 4, "!!str")]),
        ("a: !secret {b: 1}\n", [("LAB008", 1, 4, "!secret")]),
        ("%YAML 1.1\n---\na: 1\n", [("LAB008", 1, 1, "%YAML 1.1")]),
        ("a: 1\n---\nb: 1\n", [("LAB009", 2, 1, "---")]),
        ("", [("LAB010", 1, 1, "")]),
        ("# only a comment\n", [("LAB010", 1, 1, "#")]),
        ("null\n", [("LAB010", 1, 1, "n")]),
        ("- a\n- b\n", [("LAB010", 1, 1, "-")]),
        ("a: *nope\n", [("LAB011", 1, 4, "*nope")]),
        ("a: &a [*a]\n", [("LAB011", 1, 8, "*a")]),
        ("a: &a:b c\n", [("LAB011", 1, 4, "&")]),
        ("a: {<<: 5}\n", [("LAB012", 1, 9, "5")]),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", [("LAB012", 2, 13, "<<")]),
        ("a: &l [1]\nb: {<<: *l}\n", [("LAB012", 1, 8, "1")]),
        ("a: 012\n", [("LAB013", 1, 4, "012")]),
        ("a: &x 1\nb: &x 2\n", [("LAB014", 2, 7, "2")]),
        (
            "a: .inf\nb: -.INF\nc: .nan\n",
            [("LAB016", 1, 4, ".inf"), ("LAB016", 2, 4, "-.INF"), ("LAB016", 3, 4, ".nan")],
        ),
        (f"a: {'9' * 5000}\nb: 1e999\n", [("LAB016", 1, 4, "9" * 5000), ("LAB016", 2, 4, "1e999")]),
        ('a: "x\\0"\n', [("LAB002", 1, 4, '"x\\0"')]),
        ("a: x\0y\n", [("LAB002", 1, 5, "\0")]),
        ("a: x\u2028b: 2\n", [("LAB002", 1, 5, "\u2028")]),
        ("a: \ud800\n", [("LAB002", 1, 4, "\ud800")]),
        ("a: \x1b[31m\n", [("LAB002", 1, 4, "\x1b")]),
    ],
)
def test_what_a_lab_may_not_hold(text: str, expected: list[tuple[str, int, int, str]]) -> None:
    assert faults(text) == expected


def test_warnings_do_not_stop_anything() -> None:
    result = parse("a: 012\nb: &x 1\nc: &x 2\nd: *x\n", "lab.yaml")
    assert result.ok
    assert result.value is not None
    assert result.value.data == {"a": 12, "b": 1, "c": 2, "d": 2}


def test_a_duplicate_shows_both_places_and_keeps_the_rest() -> None:
    result = parse("a: 1\nb: 2\na: 3\n", "lab.yaml")
    (duplicate,) = result.diagnostics
    assert [(r.message, r.span.line) for r in duplicate.related if r.span] == [("first written here", 1)]
    assert result.value is not None
    assert result.value.data == {"a": 1, "b": 2}


def test_an_unknown_alias_suggests_a_near_one() -> None:
    (unknown,) = parse("a: &chat {}\nb: *caht\n", "lab.yaml").diagnostics
    assert unknown.hint == "did you mean `*chat`?"
