"""supervisor's configuration: its own options parser gets back what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labctl.emit import EmitError, ini
from tests.emit.real_supervisor import programs

WORDS = st.one_of(
    st.text(st.sampled_from("ab \t'\"\\$%;#{}(),=x0é😀-@"), max_size=10),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20),
)


def render(arguments: list[str], variables: dict[str, str]) -> str:
    pairs = [("command", ini.command(["/bin/true", *arguments]))]
    pairs += [("environment", ini.environment(variables))] if variables else []
    return ini.dump([("supervisord", []), ("program:one", pairs)])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, max_size=4), st.lists(WORDS.filter(ini.speakable), max_size=4))
@example(["a ;b", "; c", "#", "100%", "%(here)s", "", "it's"], ["100%", "a, b='c' d", "x"])
def test_arguments_and_variables_come_back(tmp_path: Path, arguments: list[str], values: list[str]) -> None:
    variables = {f"V{number}": value for number, value in enumerate(values)}
    (program,) = programs(render(arguments, variables), tmp_path)
    assert program.arguments == ["/bin/true", *arguments]
    assert program.environment == variables


def test_an_expansion_of_its_own_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_PYTHON", "/opt/my python")
    text = ini.dump(
        [("supervisord", []), ("program:one", [("command", ini.command([ini.Expansion("ENV_LABCTL_PYTHON"), "%(a)"]))])]
    )
    (program,) = programs(text, tmp_path)
    assert program.arguments == ["/opt/my python", "%(a)"]


@pytest.mark.parametrize("value", ['it\'s "both"', "'quoted'", "a ;b", "a\nb"])
def test_what_supervisor_cannot_hold_is_refused(value: str) -> None:
    assert not ini.speakable(value)
    with pytest.raises(EmitError):
        ini.environment({"A": value})


@pytest.mark.parametrize("value", ["a\nb", "a ; b", " a"])
def test_a_value_that_would_be_cut_is_refused(value: str) -> None:
    with pytest.raises(EmitError):
        ini.dump([("program:a", [("directory", value)])])


def test_a_command_of_several_lines_is_refused() -> None:
    with pytest.raises(EmitError):
        ini.command(["a\nb"])
