"""How diagnostics look: snippets, carets, order, colours, JSON."""

from __future__ import annotations

import io
import re

import pytest

from labctl.diagnostics import Diagnostic, Related, Severity, Span
from labctl.document import parse
from labctl.views.console import Printer
from labctl.views.diagnostics import count_line, in_order, render_diagnostics, to_json


def span(source: str, column: int, end: int, *, line: int = 8, file: str = "lab.yaml") -> Span:
    return Span(file, line, column, line, end, source)


UNKNOWN = Diagnostic(
    code="LAB021",
    summary="unknown key `vrm` in entry 1 of `gpus`",
    detail="first line\nsecond line",
    path=("hosts", "ash", "gpus", 0, "vrm"),
    span=span("      - {name: rtx3090, vrm: 24GiB}", 25, 28),
    label="did you mean `vram`?",
    hint="known keys are `name`, `vram`",
    related=(Related("the other", span=span("x: 1", 1, 2, line=112)), Related("and nowhere")),
)


def test_the_whole_shape() -> None:
    assert render_diagnostics([UNKNOWN]) == (
        "error[LAB021]: unknown key `vrm` in entry 1 of `gpus`\n"
        "   --> lab.yaml:8:25\n"
        "    |\n"
        "  8 |       - {name: rtx3090, vrm: 24GiB}\n"
        "    |                         ^^^ did you mean `vram`?\n"
        "   ::: lab.yaml:112:1\n"
        "    |\n"
        "112 | x: 1\n"
        "    | - the other\n"
        "    = and nowhere\n"
        "    = first line\n"
        "    = second line\n"
        "    |\n"
        "hint: known keys are `name`, `vram`\n"
        "\n"
        "1 error in lab.yaml"
    )


def test_without_a_place() -> None:
    diagnostic = Diagnostic(code="LAB001", summary="gone", hint="look", severity=Severity.WARNING)
    assert render_diagnostics([diagnostic]) == "warning[LAB001]: gone\nhint: look\n\n1 warning"


def test_nothing_to_say() -> None:
    assert render_diagnostics([]) == ""


def test_order_and_counts() -> None:
    late = Diagnostic(code="LAB021", summary="late", span=span("x", 1, 2, line=9))
    early = Diagnostic(code="LAB022", summary="early", span=span("x", 1, 2, line=2), severity=Severity.WARNING)
    other = Diagnostic(code="LAB020", summary="other", span=span("x", 1, 2, line=1, file="lab.local.yaml"))
    nowhere = Diagnostic(code="LAB060", summary="nowhere", severity=Severity.NOTE)
    ordered = in_order([late, early, other, nowhere, late])
    assert [d.summary for d in ordered] == ["nowhere", "other", "early", "late"]
    assert count_line(ordered) == "2 errors, 1 warning, 1 note in lab.local.yaml, lab.yaml"


def caret(source: str, column: int, end: int) -> tuple[str, str]:
    """Return the source line and the line of marks as shown, without the gutter."""
    lines = render_diagnostics([Diagnostic(code="LAB022", summary="s", span=span(source, column, end))]).splitlines()
    return lines[3][4:], lines[4][4:]


@pytest.mark.parametrize(
    ("source", "column", "end", "shown", "marks"),
    [
        ("a: bc", 4, 6, "a: bc", "   ^^"),
        ("日本: bc", 5, 7, "日本: bc", "      ^^"),
        ("a: 日本", 4, 6, "a: 日本", "   ^^^^"),
        ("e\u0301: b", 5, 6, "e\u0301: b", "   ^"),
        ("\ta: b", 5, 6, "    a: b", "       ^"),
        ("a:\x1b[31m b", 9, 10, "a:�[31m b", "        ^"),
        ("a:\u2028b", 4, 5, "a: b", "   ^"),
        ("a:", 3, 4, "a:", "  ^"),
    ],
)
def test_carets(source: str, column: int, end: int, shown: str, marks: str) -> None:
    assert caret(source, column, end) == (shown, marks)


@pytest.mark.parametrize("column", [1, 50, 200, 5_000, 9_990])
def test_long_lines_are_cut_around_the_place(column: int) -> None:
    source = "".join(chr(ord("a") + i % 26) for i in range(10_000))
    shown, marks = caret(source, column, column + 3)
    assert len(shown) <= 142
    at = marks.index("^")
    assert shown[at : at + 3] == source[column - 1 : column + 2]
    assert len(caret(source, column, 10_001)[1]) <= 142


def test_names_cannot_forge_lines_or_colours() -> None:
    (fault,) = parse(
        'lab: x\n"a\\nerror[LAB999]: \\u2028b": 1\n"a\\nerror[LAB999]: \\u2028b": 2\n', "lab.yaml"
    ).diagnostics
    assert "\nerror[LAB999]" not in render_diagnostics([fault])


def test_colour_adds_nothing_but_colour() -> None:
    coloured = render_diagnostics([UNKNOWN], colour=True)
    assert "\x1b[1;31merror[LAB021]\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == render_diagnostics([UNKNOWN])


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "colour"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_when_there_is_colour(stream: io.StringIO, environment: dict[str, str], colour: bool) -> None:  # noqa: FBT001
    assert Printer.of(io.StringIO(), stream, environment).colour is colour


def test_json() -> None:
    (value,) = to_json([UNKNOWN])
    assert value == {
        "code": "LAB021",
        "severity": "error",
        "summary": "unknown key `vrm` in entry 1 of `gpus`",
        "detail": "first line\nsecond line",
        "path": ["hosts", "ash", "gpus", 0, "vrm"],
        "at": "value",
        "span": {
            "file": "lab.yaml",
            "line": 8,
            "column": 25,
            "end_line": 8,
            "end_column": 28,
            "source": "      - {name: rtx3090, vrm: 24GiB}",
        },
        "label": "did you mean `vram`?",
        "hint": "known keys are `name`, `vram`",
        "related": [
            {
                "message": "the other",
                "path": None,
                "span": {
                    "file": "lab.yaml",
                    "line": 112,
                    "column": 1,
                    "end_line": 112,
                    "end_column": 2,
                    "source": "x: 1",
                },
            },
            {"message": "and nowhere", "path": None, "span": None},
        ],
    }


def test_data_and_words_go_different_ways() -> None:
    out, err = io.StringIO(), io.StringIO()
    printer = Printer(out, err)
    printer.data_json({"é": 1})
    printer.say("hello")
    assert (out.getvalue(), err.getvalue()) == ('{\n  "é": 1\n}\n', "hello\n")
