"""What the gateway says of a file that it cannot use: where and why, in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from labctl.swap.__main__ import main
from labctl.swap.config import ConfigError, from_value, read_keys
from labctl.swap.keys import Keys

DIGEST = "ab" * 32
ANT = {"name": "ant", "url": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "the file is not a mapping"),
        ({"format": 2}, "format 2 is not known; this gateway reads format 1"),
        ({"colour": 1}, "the file: unknown key `colour`"),
        ({"backends": 3}, "`backends` is not a list"),
        ({"backends": {"ant": ANT}}, "`backends` is not a list"),
        ({"backends": [3]}, "backend 0 is not a mapping"),
        ({"backends": [{"name": "ant"}]}, "backend 0: `url` is missing"),
        ({"backends": [ANT, {}]}, "backend 1: `name` is missing"),
        ({"backends": [ANT, ANT]}, "two backends are called 'ant'"),
        ({"backends": [{**ANT, "colour": 1}]}, "backend 0: unknown key `colour`"),
        ({"backends": [{**ANT, "serves": "ant"}]}, "backend 0: `serves` is not a list"),
        ({"backends": [{**ANT, "serves": [1]}]}, "backend 0: `serves` has to hold texts only"),
        ({"backends": [{**ANT, "slots": "2"}]}, "backend 0: `slots` has to be a whole number"),
        ({"backends": [{**ANT, "slots": True}]}, "backend 0: `slots` has to be a whole number"),
        ({"backends": [{**ANT, "slots": 0}]}, "backend 0: `slots` has to be 1 or more"),
        ({"backends": [{**ANT, "pinned": 1}]}, "backend 0: `pinned` has to be true or false"),
        ({"backends": [{**ANT, "ttl": "5 min"}]}, "backend 0: `ttl` has to be a number or null"),
        ({"backends": [{**ANT, "memory": {"gpu": 1.5}}]}, "backend 0: `memory` has to hold whole numbers only"),
        ({"backends": [{**ANT, "memory": {"gpu": 1}}]}, "backend 'ant': there is no card 'gpu'"),
        ({"backends": [{**ANT, "driver": []}]}, "backend 0: `driver` is not a mapping"),
        (
            {"backends": [{**ANT, "driver": {"kind": "magic"}}]},
            "backend 0: there is no driver 'magic'; there are docker, none, supervisor, systemd, systemd-user",
        ),
        ({"keys": 3, "backends": []}, "`keys` is not a list"),
        ({"keys": [{"name": "eve", "sha256": "é"}]}, "key 0: `sha256` has to be 64 hexadecimal digits in lower case"),
        ({"backends": [], "port": "x"}, "the file: `port` has to be a whole number"),
        ({"cards": {"gpu": "4 GB"}, "backends": []}, "the file: `cards` has to hold whole numbers only"),
        ({}, None),
        ({"backends": [{**ANT, "startup": 5, "ttl": None, "driver": {"kind": "none"}}]}, None),
    ],
)
def test_a_wrong_file(value: Any, message: str | None) -> None:
    """The place and the reason; no field of Python's."""
    if message is None:
        from_value({"backends": [], **value})
        return
    with pytest.raises(ConfigError) as caught:
        from_value(value)
    assert str(caught.value) == message


def test_a_file_without_backends() -> None:
    """It says what is missing."""
    with pytest.raises(ConfigError, match="the file: `backends` is missing"):
        from_value({"port": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "the file of keys is not a list"),
        ("[3]", "key 0 is not a mapping"),
        ("{", "keys: Expecting property name"),
        ("[" * 100_000, "keys: maximum recursion depth exceeded"),
        (json.dumps([{"name": "eve"}]), "key 0: `sha256` is missing"),
        (json.dumps([{"name": "eve", "env": "EVE"}]), "key 0: `sha256` is missing"),
        (json.dumps([{"sha256": DIGEST}]), "key 0: `name` is missing"),
        (json.dumps([{"name": "eve", "sha256": DIGEST.upper()}]), "key 0: `sha256` has to be 64 hexadecimal"),
    ],
)
def test_a_wrong_file_of_keys(text: str, message: str) -> None:
    """Nobody is let in by half."""
    with pytest.raises(ConfigError) as caught:
        read_keys(text)
    assert str(caught.value).startswith(message)


def test_the_program_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 and one line, not a traceback."""
    path = tmp_path / "gateway.json"
    for text, said in (
        ('{"backends": 3}', "error: `backends` is not a list\n"),
        ("[" * 100_000, f"error: {path}: maximum recursion depth exceeded"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), f"error: {path}: Expecting value"),
    ):
        path.write_text(text)
        assert main(["--config", str(path), "--check"]) == 2
        assert capsys.readouterr().err.startswith(said)


def test_a_broken_file_of_keys_changes_nothing(tmp_path: Path) -> None:
    """A file that is being edited badly lets in whom it let in before; one that is gone lets in nobody."""
    path, now = tmp_path / "keys.json", [0.0]
    path.write_text(json.dumps([{"name": "eve", "sha256": hashlib.sha256(b"secret").hexdigest()}]))
    keys = Keys((), str(path), lambda: now[0])
    eve = {b"authorization": b"Bearer secret"}
    assert keys.who(eve) is not None
    for wrong in (b"{", b"\xff\xfe\x00", b"3", b'[{"name": "eve"}]'):
        path.write_bytes(wrong)
        now[0] += 2
        assert keys.who(eve) is not None
    path.unlink()
    now[0] += 2
    assert keys.who(eve) is None
