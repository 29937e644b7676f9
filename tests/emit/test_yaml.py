"""YAML: both generations of readers read back what was written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from labctl.emit import EmitError, Value, yaml

SPELLINGS = """
yes no on off y N True NULL ~ null = << - -- --- ... .inf -.inf .nan 1e3 1.0 0x1f 0o17 017 1_000 12:30 190:20:30
2026-11-20 2001-12-14t21:59:43.10-05:00 *a &a !a %a @a `a |a >a 'a "a a:b a: b: :a ?a a#b #a --port -c -1 30s 1e5m
3g 0b1 1b ./a ../b ./ .5 ..
{a} [a] a,b 127.0.0.1:80:80 ghcr.io/a/b:1@sha256:0 --x=[1] /a
"""
WORDS = st.sampled_from(SPELLINGS.split())
SEEDED = st.text(st.sampled_from(" \n\t:#-'\"\\[]{}?!&*|>%@`,aZ09.~=<\r\x85\u2028\ufeff\x00\x7f é😀"), max_size=12)
TEXTS = st.one_of(WORDS, SEEDED, st.text(max_size=30), st.tuples(WORDS, SEEDED).map(" ".join))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4))
)


def load11(text: str) -> object:
    return pyyaml.safe_load(text)


def load12(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


@settings(max_examples=300, deadline=None)
@given(VALUES)
@example({"a": "on", "b": "12:30", "c": ["no", "1e3", 1e16, 1e-7]})
@example([[[]], [{}], [{"a": [1]}], {"a": {"b": "x\ny\n"}}, ["x\n y"]])
@example({"template": "{% if a %}\n  b\n\n\tc\n"})
def test_both_readers_read_back_what_was_written(value: Value) -> None:
    text = yaml.dump(value)
    assert load11(text) == value
    assert load12(text) == value
    assert _types(load11(text)) == _types(value) == _types(load12(text))


def _types(value: object) -> object:
    """``1 == 1.0 == True`` in Python: compare the types as well."""
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_types(item) for item in value]
    return type(value)


def test_a_service_reads_well() -> None:
    value: Value = {
        "name": "lab",
        "services": {
            "chat": {
                "image": "ghcr.io/ggml-org/llama.cpp:server-cuda-b6500@sha256:00",
                "command": ["--port", "8080", "-c", "8192", "--jinja", "--alias", "a,b", "on"],
                "ports": ["127.0.0.1:8081:8080"],
                "healthcheck": {"test": ["CMD", "curl", "http://127.0.0.1:8080/health"], "interval": "15s"},
                "devices": [{"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}],
                "empty": {},
            }
        },
        "script": "a\n\n  b\n",
    }
    assert yaml.dump(value) == (
        "# made by labctl from lab.yaml: edit that instead\n"
        "name: lab\n"
        "services:\n"
        "  chat:\n"
        "    image: ghcr.io/ggml-org/llama.cpp:server-cuda-b6500@sha256:00\n"
        "    command:\n"
        "      - --port\n"
        '      - "8080"\n'
        "      - -c\n"
        '      - "8192"\n'
        "      - --jinja\n"
        "      - --alias\n"
        "      - a,b\n"
        '      - "on"\n'
        "    ports:\n"
        '      - "127.0.0.1:8081:8080"\n'
        "    healthcheck:\n"
        "      test:\n"
        "        - CMD\n"
        "        - curl\n"
        "        - http://127.0.0.1:8080/health\n"
        "      interval: 15s\n"
        "    devices:\n"
        "      - driver: nvidia\n"
        "        device_ids:\n"
        '          - "0"\n'
        "        capabilities:\n"
        "          - gpu\n"
        "    empty: {}\n"
        "script: |\n"
        "  a\n"
        "\n"
        "    b\n"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"a" * 2000: 1}, {1: 2}, {"a": {1, 2}}])
def test_what_yaml_cannot_say_is_refused(value: Value) -> None:
    with pytest.raises(EmitError):
        yaml.dump(value)
