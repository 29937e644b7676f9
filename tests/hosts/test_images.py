"""What Docker says when an image cannot be had, and how far a pull is."""

from __future__ import annotations

import pytest

from labctl.agent.call import Call, Cancelled, Values
from labctl.agent.images import Layers, _follow
from labctl.hosts.images import cause_of, familiar

SAID = {
    "Error response from daemon: manifest for vllm/vllm-openai:v0.99 not found: manifest unknown: manifest unknown": (
        "LAB157"
    ),
    "Error response from daemon: pull access denied for nope/nope, repository does not exist or may require "
    "'docker login': denied: requested access to the resource is denied": "LAB157",
    "no matching manifest for linux/arm64/v8 in the manifest list entries": "LAB157",
    'Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on '
    "10.0.0.1:53: no such host": "LAB158",
    'Error response from daemon: Get "https://10.0.0.9:5000/v2/": dial tcp 10.0.0.9:5000: connection refused': (
        "LAB158"
    ),
    'Error response from daemon: Get "https://r/v2/": net/http: request canceled while waiting for connection '
    "(Client.Timeout exceeded while awaiting headers)": "LAB158",
    'Get "https://r:5000/v2/": http: server gave HTTP response to HTTPS client': "LAB158",
    "toomanyrequests: You have reached your pull rate limit.": "LAB158",
    "failed to register layer: write /usr/lib/libcudnn.so.9: no space left on device": "LAB159",
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
    '"http://%2Fvar%2Frun%2Fdocker.sock/v1.45/images/x/json": dial unix /var/run/docker.sock: connect: permission '
    "denied": "LAB104",
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?": "LAB104",
}


@pytest.mark.parametrize(("said", "code"), SAID.items())
def test_what_dockers_messages_mean(said: str, code: str) -> None:
    cause = cause_of(said)
    assert cause is not None
    assert cause.code == code
    assert cause.hint


def test_an_unknown_message_is_not_explained() -> None:
    assert cause_of("something else went wrong") is None


def test_only_what_may_pass_is_tried_again() -> None:
    assert {code for said, code in SAID.items() if (cause := cause_of(said)) and cause.passing} == {"LAB158"}
    assert not any(c.passing for c in [cause_of("x509: certificate signed by unknown authority")] if c)


def test_names_are_compared_as_docker_lists_them() -> None:
    assert familiar("docker.io/library/postgres:17") == "postgres:17"
    assert familiar("docker.io/vllm/vllm-openai:v1") == "vllm/vllm-openai:v1"
    assert familiar("ghcr.io/a/b:1") == "ghcr.io/a/b:1"


def test_how_far_a_pull_is() -> None:
    layers = Layers()
    for line in (
        "v1: Pulling from a/b",
        "aaaaaaaaaaaa: Already exists",
        "bbbbbbbbbbbb: Pulling fs layer",
        "cccccccccccc: Pulling fs layer",
        "bbbbbbbbbbbb: Downloading  1.5MB/10MB",
    ):
        layers.heard(line)
    assert layers.event() == {"done": 1_500_000, "layers": 1, "of": 3}
    layers.heard("bbbbbbbbbbbb: Download complete")
    layers.heard("bbbbbbbbbbbb: Extracting  2MB/10MB")
    assert layers.event() == {"done": 10_000_000, "layers": 1, "of": 3}
    layers.heard("bbbbbbbbbbbb: Pull complete")
    assert layers.event()["layers"] == 2
    assert not layers.heard("Digest: sha256:00")


def _call(*, check: bool = False) -> Call:
    def stop() -> None:
        if check:
            raise Cancelled

    return Call({}, b"", lambda _values, _body: None, stop)


def test_a_program_is_heard_line_by_line_and_its_last_words_are_kept() -> None:
    heard: list[str] = []
    script = "printf 'one\\rtwo\\n'; test -t 1 && echo terminal; echo oh >&2; exit 3"
    assert _follow(_call(), ["sh", "-c", script], heard.append) == (3, "one\ntwo\nterminal\noh")
    assert heard == ["one", "two", "terminal", "oh"]
    assert _follow(_call(), ["sh", "-c", script], heard.append, terminal=False) == (3, "one\ntwo\noh")
    assert _follow(_call(), ["/nope/docker"], heard.append)[0] == 127


def test_nobody_waits_for_an_image_that_is_not_wanted() -> None:
    with pytest.raises(Cancelled):
        _follow(_call(check=True), ["sleep", "60"], lambda _line: None)


def test_values_are_json() -> None:
    values: Values = dict(Layers().event())
    assert values == {"done": 0, "layers": 0, "of": 0}
