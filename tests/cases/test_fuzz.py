"""Whatever stands in lab.yaml: an answer, never an exception, and every place lies in the file."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.usecases import validate
from labctl.views.diagnostics import render_diagnostics, to_json
from tests.examples.labs import EXAMPLES, NAMES, bare
from tests.tools.compose import folder

TEXTS = tuple((EXAMPLES / name / "lab.yaml").read_text() for name in NAMES)
WORDS = sorted({word for text in TEXTS for word in re.findall(r"[\w./-]+", text)})
ODD = [
    "",
    "0",
    "-1",
    "1e99",
    "true",
    "null",
    "~",
    "4 GiB",
    "-4 GiB",
    "0 B",
    "9999999999999999999999",
    "é",
    "a b",
    "*chat",
    "&x",
]
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.sampled_from(ODD) | st.text()
)
FEW = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=int(os.environ.get("LABCTL_FUZZ", "500")))


@st.composite
def edited_text(draw: st.DrawFn) -> str:
    """Draw an example whose lines and words were deleted, doubled, swapped or replaced at random."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        pattern = draw(st.sampled_from([r"(?<=\n)[^\n]*\n", r"[\w./-]+", r"[{}\[\],:&*#]", r"\n *"]))
        places = [m.span() for m in re.finditer(pattern, text)]
        if places:
            start, end = draw(st.sampled_from(places))
            other = draw(st.sampled_from(places))
            new = draw(st.sampled_from(["", text[start:end] * 2, text[slice(*other)], *ODD]) | st.sampled_from(WORDS))
            text = text[:start] + new + text[end:]
    return text


@st.composite
def edited_tree(draw: st.DrawFn) -> str:
    """Draw an example in which values were replaced by values of any kind: what is behind the schema is reached."""
    data = yaml.safe_load(draw(st.sampled_from(TEXTS)))
    for _ in range(draw(st.integers(1, 3))):
        owner, key = draw(st.sampled_from(list(_places(data))))
        here = owner[key]
        kept = copy.deepcopy(draw(st.sampled_from(list(_values(data)))))
        new = draw(PLAIN | st.just(kept) | st.lists(PLAIN, max_size=3) | st.just(_more(here)))
        owner[key] = new
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _more(value: Any) -> Any:
    """Return a number far from what it was; anything else twice."""
    if isinstance(value, bool) or value is None:
        return [value, value]
    if isinstance(value, int | float):
        return value * 1000 + 1
    return f"{value}0" if isinstance(value, str) else [value, value]


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _values(value: Any) -> Any:
    yield from (owner[key] for owner, key in _places(value))


def check(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    with folder() as lab:
        (lab / "lab.yaml").write_bytes(data)
        with bare(lab):
            loaded = validate(Path("lab.yaml"))
        assert [p.name for p in lab.iterdir()] == ["lab.yaml"]
    lines = len(text.splitlines()) + text.count("\r") + 1
    for diagnostic in loaded.diagnostics:
        assert re.fullmatch(r"LAB\d{3}", diagnostic.code)
        assert diagnostic.summary
        assert diagnostic.span is None or 1 <= diagnostic.span.line <= lines
    assert loaded.rendered is not None or not loaded.ok
    render_diagnostics(loaded.diagnostics, colour=False)
    to_json(loaded.diagnostics)


@given(edited_text())
@FEW
def test_edited_text(text: str) -> None:
    check(text)


@given(edited_tree())
@FEW
def test_edited_values(text: str) -> None:
    check(text)


@pytest.mark.slow
@given(edited_text() | edited_tree())
@MANY
def test_much_more(text: str) -> None:
    check(text)
