"""Which machine code runs on which card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.compat.capability import parse, runs, version

ALL = (
    "5.0",
    "5.2",
    "5.3",
    "6.0",
    "6.1",
    "7.0",
    "7.2",
    "7.5",
    "8.0",
    "8.6",
    "8.7",
    "8.9",
    "9.0",
    "10.0",
    "11.0",
    "12.0",
    "12.1",
)


@pytest.mark.parametrize(
    ("card", "sass", "ptx", "expected"),
    [
        ("8.6", ("8.0",), (), True),
        ("8.0", ("8.6",), (), False),
        ("8.7", ("8.6",), (), False),
        ("8.9", ("8.7",), (), False),
        ("7.5", ("7.0",), (), True),
        ("7.2", ("7.0",), (), False),
        ("9.0", ("8.9",), (), False),
        ("12.1", ("12.0",), (), True),
        ("12.1", ("12.0a",), (), False),
        ("12.0", ("12.0a",), (), True),
        ("12.0", (), ("9.0",), True),
        ("12.0", (), ("9.0a",), False),
        ("6.1", (), ("7.5",), False),
        ("6.1", (), ("5.0",), True),
        ("8.7", (), ("8.0",), True),
        ("6.1", (), (), False),
    ],
)
def test_runs(card: str, sass: tuple[str, ...], ptx: tuple[str, ...], expected: bool) -> None:  # noqa: FBT001
    assert runs(card, sass, ptx) is expected


@given(st.sampled_from(ALL), st.sampled_from(ALL), st.sampled_from(ALL))
def test_ptx_runs_on_every_later_card(ptx: str, older: str, newer: str) -> None:
    if parse(older) <= parse(newer) and runs(older, (), (ptx,)):
        assert runs(newer, (), (ptx,))


@given(st.sampled_from(ALL))
def test_own_code_always_runs(card: str) -> None:
    assert runs(card, (card,), ())


def test_what_is_no_capability() -> None:
    with pytest.raises(ValueError, match="sm_120"):
        parse("sm_120")


@pytest.mark.parametrize(
    ("older", "newer"), [("b2800", "b11549"), ("570.124.06", "580.65"), ("12.8.1", "13.0"), ("0.9.2", "0.31.0")]
)
def test_versions_compare_by_number(older: str, newer: str) -> None:
    assert version(older) < version(newer)
