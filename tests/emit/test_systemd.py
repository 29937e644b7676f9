"""Unit files: systemd's own word splitter gets back the words that were meant."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labctl.emit import EmitError, systemd
from tests.emit.real_systemd import split

WORDS = st.one_of(
    st.text(st.sampled_from("ab \t\n'\"\\$%;#{}x0é😀-@"), max_size=10),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)


def expand(word: str) -> str:
    """What is left of our escapes after specifiers and variables; anything that systemd would expand fails."""
    for sign in "%$":
        parts = word.split(sign * 2)
        assert not any(sign in part for part in parts), f"{word!r} would be expanded"
        word = sign.join(parts)
    return word


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, max_size=5))
@example([" ; "])
@example([";", "", "a b", "--chat-template-kwargs", '{"enable_thinking": false}', "100%", "$HOME", "\\n"])
def test_exec_arguments_come_back(arguments: list[str]) -> None:
    line = systemd.command("/usr/bin/true", arguments)
    assert [expand(word) for word in split(line)] == ["/usr/bin/true", *arguments]
    assert "\n" not in line
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', line)
    assert " ; " not in f"{bare} ", "a bare semicolon starts another command"


@settings(max_examples=200, deadline=None)
@given(WORDS)
def test_a_variable_comes_back(value: str) -> None:
    (word,) = split(systemd.variable("NAME", value))
    assert word.replace("%%", "%") == f"NAME={value}"


def test_a_unit_reads_well() -> None:
    sections: list[systemd.Section] = [
        ("Unit", [("Description", systemd.text("100 % chat")), ("After", systemd.words(["a.service", "b.service"]))]),
        ("Service", [("Environment", systemd.variable("A", "1")), ("Environment", systemd.variable("B", "two words"))]),
    ]
    assert systemd.dump(sections) == (
        "# made by labctl from lab.yaml: edit that instead\n"
        "[Unit]\nDescription=100 %% chat\nAfter=a.service b.service\n\n"
        '[Service]\nEnvironment=A=1\nEnvironment="B=two words"\n'
    )


@pytest.mark.parametrize("value", ["a\nb", "a\\", "\x00"])
def test_a_value_of_several_lines_is_refused(value: str) -> None:
    with pytest.raises(EmitError):
        systemd.dump([("Unit", [("Description", value)])])


@pytest.mark.parametrize("program", ["-/bin/a", "@a", "+a", "/a$b", "", "a\nb"])
def test_a_program_that_systemd_reads_otherwise_is_refused(program: str) -> None:
    with pytest.raises(EmitError):
        systemd.command(program)


def test_a_control_character_is_refused() -> None:
    with pytest.raises(EmitError):
        systemd.command("a", ["\x07"])
