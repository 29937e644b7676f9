"""Environment files: compose, systemd and ``labctl.run_env`` read the same values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labctl import run_env
from labctl.emit import EmitError, env, yaml
from tests.emit.real_systemd import read_environment_file
from tests.tools import compose

VALUES = st.one_of(
    st.text(st.sampled_from("ab \t\n'\"\\$%;#{}`x0é😀=nr"), max_size=12),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)
AWKWARD = [
    "",
    " ",
    "a b",
    "$HOME",
    "${HOME}",
    "\\",
    "\\n",
    "\\\\$",
    'a"b',
    "it's",
    "`id`",
    "#x",
    "a #b",
    "a\nb\n",
    "$$",
    "é",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=5))
@example(AWKWARD)
def test_systemd_and_run_env_read_the_same(values: list[str]) -> None:
    entries = {f"V{number}": value for number, value in enumerate(values)}
    text = env.dump(entries)
    assert read_environment_file(text) == entries
    assert run_env.parse(text) == entries


@settings(max_examples=3, deadline=None)
@given(st.lists(VALUES, min_size=200, max_size=200))
@example(AWKWARD)
def test_compose_reads_the_same(values: list[str]) -> None:
    entries = {f"V{number}": value for number, value in enumerate(values)}
    with compose.folder() as folder:
        (folder / "secrets.env").write_text(env.dump(entries), encoding="utf-8", newline="")
        service = {"image": "scratch", "env_file": ["secrets.env"]}
        (folder / "compose.yaml").write_text(yaml.dump({"name": "a", "services": {"a": service}}), encoding="utf-8")
        config = json.loads(compose.run(folder / "compose.yaml", "--format", "json"))
    seen = config["services"]["a"]["environment"]
    assert {name: (value or "").replace("$$", "$") for name, value in seen.items()} == entries


@pytest.mark.parametrize("value", ["a\rb", "\0", "\x1b"])
def test_a_value_that_systemd_drops_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(EmitError) as caught:
        env.dump({"A": f"hunter2{value}"})
    assert "hunter2" not in str(caught.value)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(EmitError):
        env.dump({"A-B": "x"})


def test_run_env_starts_the_program_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execvpe", lambda program, argv, environ: started.append((program, argv, environ)))
    file = tmp_path / "a.env"
    file.write_text(env.dump({"KEY": 'a "$b"'}))
    run_env.main(["run_env", str(file), "--", "/bin/echo", "--", "x"])
    ((program, argv, environ),) = started
    assert (program, argv, environ["KEY"]) == ("/bin/echo", ["/bin/echo", "--", "x"], 'a "$b"')


@pytest.mark.parametrize("argv", [[], ["f"], ["f", "--"], ["f", "x", "y"]])
def test_run_env_says_how_it_is_used(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="usage"):
        run_env.main(["run_env", *argv])


@pytest.mark.parametrize("text", ["A=1\n", 'A="\n', 'A="x" y\n', 'A="\\q"\n'])
def test_run_env_refuses_other_files_without_showing_them(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        run_env.parse(text)
