"""Secrets: sources, the type that hides, the redactor, and what is written to secret files."""

from __future__ import annotations

import json
import pickle
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl import run_env
from labctl.artefact import Format, SecretFile
from labctl.diagnostics import LabctlError
from labctl.dotenv import DotenvError, parse_dotenv
from labctl.hosts.base import HostError
from labctl.hosts.secret_files import secret_content
from labctl.secrets import (
    MASK,
    Command,
    EnvFile,
    Environment,
    Generated,
    Redactor,
    Secret,
    Secrets,
    load,
    parse_output,
    require,
)
from labctl.workload import SecretRef, SecretText

VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n"), min_size=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1", {"A": "1"}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("export A = x y # comment", {"A": "x y"}),
        ("A=x#y", {"A": "x#y"}),
        ("A=#nothing", {"A": ""}),
        ("A=", {"A": ""}),
        ("A='lit $x \\n' # c\n", {"A": "lit $x \\n"}),
        ('A="a\\n\\"b\\" \\$x \\\\ `"', {"A": 'a\n"b" $x \\ `'}),
        ('A="two\nlines"\n\n# c\nB=$HOME', {"A": "two\nlines", "B": "$HOME"}),
    ],
)
def test_dotenv(text: str, expected: dict[str, str]) -> None:
    assert parse_dotenv(text) == expected


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A=1\nnonsense hunter2", (2, 1)),
        ("A=1\nA=hunter2", (2, 1)),
        ('A="hunter2', (1, 3)),
        ("A='x' hunter2", (1, 6)),
        ("1A=hunter2", (1, 1)),
    ],
)
def test_dotenv_errors_have_a_place_and_no_value(text: str, place: tuple[int, int]) -> None:
    with pytest.raises(DotenvError) as caught:
        parse_dotenv(text)
    assert (caught.value.line, caught.value.column) == place
    assert "hunter2" not in str(caught.value)


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), VALUES))
def test_what_is_written_is_what_is_read(values: dict[str, str]) -> None:
    """The writer's form is read back by run_env and by our own dotenv reader."""
    secrets = Secrets({name: Secret(value) for name, value in values.items()})
    entries = {name: SecretText((SecretRef(name),)) for name in values}
    text = secret_content(SecretFile(host="h", path="s.env", entries=entries), secrets).decode()
    assert run_env.parse(text) == values
    assert parse_dotenv(text) == values


def test_raw_and_unwritable() -> None:
    secrets = Secrets({"A": Secret("v\x00")})
    entries = {"A": SecretText(("pre:", SecretRef("A")))}
    raw = SecretFile(host="h", path="x", entries=entries, format=Format.RAW)
    assert secret_content(raw, secrets) == b"pre:v\x00"
    with pytest.raises(HostError, match="LAB109") as caught:
        secret_content(SecretFile(host="h", path="x", entries=entries), secrets)
    assert "v\x00" not in str(caught.value)


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("hunter2")
    assert {str(secret), repr(secret), f"{secret}", f"{secret:>3}", repr([secret])} == {MASK, f"[{MASK}]"}
    assert "hunter2" not in repr(Secrets({"A": secret}))
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)


@given(st.text(min_size=4), st.text(), st.text())
def test_the_redactor_masks_every_spelling(value: str, before: str, after: str) -> None:
    redact = Secrets({"A": Secret(value), "B": Secret(value + "longer")}).redactor()
    for text in (value, value + "longer"):
        shown = redact(f"\x00{text}\x00")
        assert text not in shown or text in MASK
    assert redact(json.dumps({"k": value + "longer"})) == json.dumps({"k": MASK})
    assert value not in repr(redact)
    assert Redactor()(before + after) == before + after


def test_env_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert [d.code for d in EnvFile(path).load().diagnostics] == ["LAB090"]
    path.write_text("A=1\n")
    path.chmod(0o644)
    loaded = EnvFile(path).load()
    assert [d.code for d in loaded.diagnostics] == ["LAB092"]
    assert loaded.ok
    path.chmod(0o600)
    assert EnvFile(path).names().value == frozenset({"A"})
    assert EnvFile(path).load().diagnostics == ()
    path.write_text("A: hunter2")
    problem = EnvFile(path).load().diagnostics[0]
    assert problem.code == "LAB091"
    assert problem.span is not None
    assert problem.span.line == 1
    assert "hunter2" not in repr(problem)


def test_environment_takes_only_what_is_wanted() -> None:
    source = Environment(frozenset({"A", "C"}), {"A": "1", "B": "2"})
    assert source.names().value == frozenset({"A"})
    assert load([source]).value == Secrets({"A": Secret("1")})


def python(code: str) -> Command:
    return Command((sys.executable, "-c", code))


def test_command() -> None:
    assert load([python("print('A=1')")]).value == Secrets({"A": Secret("1")})
    assert load([python('print(\'{"A": "x", "N": 5}\')')]).value == Secrets({"A": Secret("x"), "N": Secret("5")})
    failures = [python("raise SystemExit(3)"), Command(("no-such-program",)), python("print('hunter2')")]
    found = [d for source in failures for d in source.load().diagnostics]
    assert [d.code for d in found] == ["LAB093", "LAB093", "LAB091"]
    assert "hunter2" not in repr(found)


def test_json_output_has_to_be_flat() -> None:
    with pytest.raises(DotenvError, match="`A` is not a text"):
        parse_output('{"A": {"B": "hunter2"}}')


def test_generated_values_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "generated.env"
    first = Generated(path, frozenset({"A", "B"})).load().value
    assert first is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(first["A"].reveal()) >= 32
    assert first["A"] != first["B"]
    more = Generated(path, frozenset({"A", "C"})).load().value
    assert more is not None
    assert more["A"] == first["A"]
    assert set(more) == {"A", "C"}
    assert set(parse_dotenv(path.read_text())) == {"A", "B", "C"}
    assert [p.name for p in path.parent.iterdir()] == ["generated.env"]


def test_the_first_source_wins_and_missing_ones_are_named() -> None:
    both = [Environment(frozenset({"A"}), {"A": "1"}), Environment(frozenset({"A", "B"}), {"A": "2", "B": ""})]
    secrets = load(both).value
    assert secrets is not None
    assert secrets.values["A"] == Secret("1")
    with pytest.raises(LabctlError) as caught:
        require(secrets, ["A", "B", "C"])
    assert [d.code for d in caught.value.diagnostics] == ["LAB094", "LAB094"]


def test_a_command_gets_no_shell(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    Command(("echo", f"A=1; touch {marker}")).load()
    assert not marker.exists()
    assert list(tmp_path.iterdir()) == []
