"""What is written as Nix is read back by Nix: the same values of the same types."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labctl.emit import EmitError, nix
from labctl.emit.nix import Call, Lambda, Noted, PathRef, Ref, Text, Value
from tests.nix import real_nix

ODD = [
    "''",
    "'",
    "'''",
    "${",
    "$",
    "$$",
    "{",
    "}",
    '"',
    "\\",
    "\n",
    "\n\n",
    "\r",
    "\t",
    "  ",
    " ",
    "é",
    "𝄞",
    "\x01",
    "x",
]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.lists(st.sampled_from(ODD), max_size=8).map("".join),
    st.lists(st.sampled_from(["a", "  b", "''c", "${d}", "", "e$", "f'"]), min_size=2, max_size=6).map("\n".join),
    st.sampled_from(
        ["if", "or", "true", "null", "inherit", "a.b", "a b", "1a", "-a", "_'", "a-b", "", "localhost:8080"]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    st.integers(-3, 3),
)
PLAIN: st.SearchStrategy[Value] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)
SAME = """
  same = a: b:
    builtins.typeOf a == builtins.typeOf b && (
      if builtins.isList a then
        builtins.length a == builtins.length b && builtins.all (n: n) (zip a b)
      else if builtins.isAttrs a then
        builtins.attrNames a == builtins.attrNames b && builtins.all (n: same a.${n} b.${n}) (builtins.attrNames a)
      else a == b);
  zip = a: b: builtins.genList (n: same (builtins.elemAt a n) (builtins.elemAt b n)) (builtins.length a);
"""
"""Equality of type and value: to Nix, ``1 == 1.0``; and its JSON has six digits of a number."""


def read_back(written: list[str], expected: list[object]) -> list[bool]:
    """Return for each Nix expression whether Nix evaluates it to the value, which it reads from JSON."""
    with TemporaryDirectory() as folder:
        Path(folder, "expected.json").write_text(json.dumps(expected), encoding="utf-8")
        items = "\n".join(f"({text})" for text in written)
        file = Path(folder, "values.nix")
        file.write_text(
            f'let {SAME} pkgs = {{ x = "X"; y."z z" = "Z"; }}; f = a: b: [ a b ]; written = [\n{items}\n];\n'
            "expected = builtins.fromJSON (builtins.readFile ./expected.json);\n"
            "in zip written expected",
            encoding="utf-8",
            newline="",
        )
        found: list[bool] = real_nix.evaluate(file)
    return found


def wrong(values: list[Value], expected: list[object]) -> list[str]:
    written = [nix.dump(value) for value in values]
    return [text for text, same in zip(written, read_back(written, expected), strict=True) if not same]


@settings(max_examples=25, deadline=None)
@given(st.lists(PLAIN, min_size=1, max_size=40))
@example([-1, [-1, [-2.5, 1e16, 1e-7, -0.1]], {"a": {"b": {}}, "c": [[], [{}], {"d": {"e": 1}}]}])
@example(
    [
        "a\nb",
        "a\nb\n",
        "  a\n  b\n",
        "a\n \nb",
        "\na\n",
        "a'\n",
        "a\nb'",
        "a\n'${x}",
        "$${x}\ny",
        "''${x}\n'''y\n",
        "''\\n\n",
    ]
)
@example([{"with": 1, "a.b": {"${c}": 2}, "": [3]}, {"or": None}, [{"a": "x\ny\n"}, "p\nq"]])
def test_plain_values(values: list[Value]) -> None:
    assert not wrong(values, list(values))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(TEXTS | st.none(), max_size=6), min_size=1, max_size=40))
@example([["$", None], ["$$", None, "{"], ["'", None, "\na"], ["a\n", None], ["a\n  ", None, "\n"], ["$", "{x}", "\n"]])
def test_text_with_values_in_it(texts: list[list[str | None]]) -> None:
    """Each None stands for a reference to ``X``."""
    written: list[Value] = [Text(*(Ref("pkgs.x") if part is None else part for part in parts)) for parts in texts]
    assert not wrong(written, ["".join("X" if part is None else part for part in parts) for parts in texts])


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=20))
def test_calls_and_their_arguments(pairs: list[tuple[Value, Value]]) -> None:
    """Calls stand as an argument, an item, an attribute and a function's body, each with any values."""
    for around in (
        lambda call: call,
        lambda call: [call, call],
        lambda call: {"a": {"b": call}},
        lambda call: Call("f", call, call),
        lambda call: Call("builtins.head", [Call("map", Lambda("x", call), [None])]),
    ):
        values = [around(Call("f", first, second)) for first, second in pairs]
        expected = [_plain(around([first, second])) for first, second in pairs]
        assert not wrong(values, expected)


def _plain(value: object) -> object:
    match value:
        case Call("f", arguments):
            return [_plain(a) for a in arguments]
        case Call("builtins.head", ([Call("map", (Lambda(_, body), _))],)):
            return [_plain(body)]
    return value


def test_names_and_functions() -> None:
    values: list[Value] = [
        Ref("pkgs.y", "z z"),
        Text("a", Ref("pkgs.y", "z z"), "b\n", Ref("pkgs.x"), "\n"),
        Call("map", Lambda("each", [Ref("each"), -1]), [1]),
        Call("map", Lambda(("a",), Ref("a")), [{"a": 1, "b": 2}]),
        {"a": Noted({"b": Noted(-1, "why"), "c": 2}, "what")},
        [{"a": Noted(1, "why")}, {"a": {"b": Noted(1, "why")}}],
    ]
    expected = ["Z", "aZb\nX\n", [[1, -1]], [1], {"a": {"b": -1, "c": 2}}, [{"a": 1}, {"a": {"b": 1}}]]
    assert not wrong(values, list(expected))


def test_a_module_is_the_function_that_it_looks_like(tmp_path: Path) -> None:
    body: dict[str, Value] = {"a": {"b": {"c": 1}, "d": [2]}, "e": 3, "f": {}, "g": Noted("x", "why")}
    (tmp_path / "m.nix").write_text(nix.module(("pkgs", "lib"), body, header="one\ntwo"), encoding="utf-8")
    (tmp_path / "empty.nix").write_text(nix.module(("pkgs",), {}), encoding="utf-8")
    (tmp_path / "set.nix").write_text(nix.module((), {"a": PathRef("./m.nix")}), encoding="utf-8")
    (tmp_path / "all.nix").write_text(
        "let given = { pkgs = 1; lib = 2; more = 3; };\n"
        "in [ (import ./m.nix given) (import ./empty.nix given) (import (import ./set.nix).a given).e ]",
        encoding="utf-8",
    )
    real_nix.parse(*tmp_path.iterdir())
    expected = {"a": {"b": {"c": 1}, "d": [2]}, "e": 3, "f": {}, "g": "x"}
    assert real_nix.evaluate(tmp_path / "all.nix") == [expected, {}, 3]


REFUSED: list[Value] = ["a\0", "\ud800", {"\0": 1}, float("nan"), float("inf"), 5e-324, 2**63, -(2**63), {"a": [2**70]}]
REFUSED += [[Noted(1, "only attributes have comments")]]


@pytest.mark.parametrize("value", REFUSED, ids=repr)
def test_what_nix_cannot_say_is_refused(value: Value) -> None:
    with pytest.raises(EmitError):
        nix.dump(value)


@pytest.mark.parametrize("path", ["", "a b", "a..b", "a.", ".a", "1a", "a.if", 'a."b"', "a; b", "a\n", "é"])
def test_names_that_are_none(path: str) -> None:
    with pytest.raises(EmitError):
        Ref(path)
    with pytest.raises(EmitError):
        Call(path, 1)
    if "." not in path.strip("."):
        with pytest.raises(EmitError):
            Lambda(path, 1)


@pytest.mark.parametrize(
    "path", ["/etc/key", "key", "./", ".", "..", "./a b", "./a//b", "./a/", "~/a", "<a>", "./a\n", "./${a}"]
)
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(EmitError):
        PathRef(path)


def test_a_comment_is_one_line() -> None:
    with pytest.raises(EmitError):
        Noted(1, "a\nb = 2;")
