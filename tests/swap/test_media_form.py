"""A form's body, read no further than needed: pieces as a client may cut them, and what a server is sent."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.swap.asgi import Gone, Problem, Receive
from labctl.swap.asked import Asked, read

FORM = {b"content-type": b'multipart/form-data; boundary="cut"'}
MODEL = b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nant\r\n'
FILE = (
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav\r\n\r\n%s\r\n'
)
TRAP = b'\r\n--cutter\r\nContent-Disposition: form-data; name="model"\r\n\r\nbee\r\n'
"""What a file may hold: a line that only begins like the delimiter."""
END = b"--cut--\r\n"


def receiver(pieces: Iterable[bytes], *, leaves: bool = False) -> Receive:
    """Return ASGI's ``receive`` of a client that sends these, and then has nothing more to send or leaves."""
    left = list(pieces)

    async def receive() -> dict[str, object]:
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or leaves}

    return receive


async def whole(asked: Asked, model: str = "") -> bytes:
    """Return what a server would be sent that calls the model ``model``."""
    sent = asked.payload(model)
    assert not isinstance(sent, bytes)
    return b"".join([piece async for piece in sent])


def asked_by(pieces: Iterable[bytes], headers: Mapping[bytes, bytes] = FORM, limit: int = 1 << 20) -> Asked:
    """Read a form."""
    return asyncio.run(read(receiver(pieces), headers, limit))


def refused(pieces: Iterable[bytes], headers: Mapping[bytes, bytes] = FORM, limit: int = 1 << 20) -> Problem:
    """Return why a form is refused at once."""
    with pytest.raises(Problem) as caught:
        asked_by(pieces, headers, limit)
    return caught.value


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([FILE % b"RIFF\x00\xff", FILE % TRAP, FILE % b"", FILE % b"\r\n--cu"]), max_size=3),
    st.lists(st.sampled_from([FILE % b"\r\n\r\n", FILE % TRAP]), max_size=2),
    st.lists(st.integers(1, 60), min_size=1),
    st.sampled_from(["", "someone/else", "å"]),
)
def test_the_model_is_found_wherever_it_stands(
    before: list[bytes], after: list[bytes], cuts: list[int], name: str
) -> None:
    """Before or after files of any content, in pieces of any length; nothing else changes."""
    form = b"".join([*before, MODEL, *after, END])
    pieces: list[bytes] = []
    at = 0
    while at < len(form):
        length = cuts[len(pieces) % len(cuts)]
        pieces.append(form[at : at + length])
        at += length

    async def run() -> None:
        asked = await read(receiver(pieces), {**FORM, b"content-length": b"%d" % len(form)}, 1 << 20)
        assert asked.model == "ant"
        sent = await whole(asked, name)
        changed = MODEL.replace(b"ant", name.encode() or b"ant")
        assert sent == b"".join([*before, changed, *after, END])
        assert asked.rest is not None
        assert asked.rest.length(name) == len(sent)
        if asked.repeatable:
            assert await whole(asked, name) == sent
        asked.rest.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("form", "headers", "message"),
    [
        (FILE % TRAP + END, FORM, "the form has no field `model`"),
        (END, FORM, "the form has no field `model`"),
        (b"", FORM, "the form has no field `model`"),
        (MODEL.replace(b"ant", b"") + END, FORM, "the form has no field `model`"),
        (MODEL.replace(b"ant", b"x" * 500) + END, FORM, "the form's field `model` is too long"),
        (b"--cut\r\nX: " + b"x" * (17 << 10), FORM, "a part of the form has too long headers"),
        (MODEL + END, {b"content-type": b"multipart/form-data"}, "the form's content type names no `boundary`"),
    ],
)
def test_a_form_without_a_model(form: bytes, headers: dict[bytes, bytes], message: str) -> None:
    """It is told why, whatever it is instead."""
    problem = refused([form[i : i + 1000] for i in range(0, len(form), 1000)] or [b""], headers)
    assert (problem.status, problem.message) == (400, message)


def test_a_form_that_is_too_long() -> None:
    """Refused by the length that it declares, or when it has come so far before its model was there."""
    assert refused([MODEL], {**FORM, b"content-length": b"9999999"}).status == 413
    assert refused([b"--cut\r\n\r\n", b"x" * (1 << 20), MODEL, END]).status == 413


def test_a_form_that_grows_too_long_on_its_way() -> None:
    """Its sender is told the limit, not by how much he exceeds it; the server is not blamed."""

    async def run() -> None:
        asked = await read(receiver([MODEL, FILE[:-2] % (b"x" * (1 << 20)), b"x" * (1 << 20)]), FORM, 2 << 20)
        with pytest.raises(Problem) as caught:
            await whole(asked)
        assert caught.value.status == 413
        assert caught.value.message == "the request has more than 2 MiB"
        assert asked.rest is not None
        assert asked.rest.problem is caught.value
        assert not asked.repeatable
        asked.rest.close()

    asyncio.run(run())


def test_a_form_for_which_there_is_no_room() -> None:
    """Its model comes too late for a disk that is full: its sender is told what would help."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
    try:
        problem = refused([FILE[:-2] % b"", *[b"x" * (1 << 20)] * 3, MODEL, END], limit=1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert problem.status == 507
    assert problem.message == "the form cannot be kept (File too large); send its `model` before its files"


def test_a_sender_that_leaves_in_the_middle() -> None:
    """Nobody else is to blame."""

    async def run() -> None:
        asked = await read(receiver([MODEL, FILE[:-2] % (b"x" * (1 << 20))], leaves=True), FORM, 2 << 20)
        with pytest.raises(Gone):
            await whole(asked)
        assert asked.rest is not None
        assert isinstance(asked.rest.problem, Gone)
        asked.rest.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "text", "status"),
    [
        ({b"content-encoding": b"gzip"}, b"\x1f\x8b", 415),
        ({}, b"[" * 100_000, 400),
        ({}, b"\xff\xfe", 400),
        ({}, b"[]", 400),
        ({}, b'{"model": 3}', 400),
    ],
)
def test_a_body_that_cannot_be_read(headers: dict[bytes, bytes], text: bytes, status: int) -> None:
    """No traceback: an answer."""
    assert refused([text], headers).status == status


def test_only_the_name_changes_in_json() -> None:
    """A lone surrogate, which JSON can spell and UTF-8 cannot, passes."""
    asked = asked_by([b'{"model": "ant", "prompt": "\\ud800 \\u00e5 1e3", "seed": 1.0}'], {})
    sent = asked.payload("bee")
    assert sent == b'{"model": "bee", "prompt": "\\ud800 \\u00e5 1e3", "seed": 1.0}'
    assert asked.payload("ant") == asked.whole == asked.payload("")
