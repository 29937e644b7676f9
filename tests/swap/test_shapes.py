"""Requests as real clients send them, and as the protocol allows them: ``cases/`` has each with its source.

Chat, vectors and ranking come from real llama.cpp. Sound and images are a stand-in's, which says what it was sent.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from labctl.tiny.embedding import embedding
from tests.swap import standin
from tests.swap.bench import GIB, Bench, bench, sentence

for module in ("xllamacpp", "supervisor"):
    pytest.importorskip(module, reason=f"{module} is not installed: no real servers to run")

pytestmark = pytest.mark.slow

KEY, GUEST = "sk-tester", "sk-guest"
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted((Path(__file__).parent / "cases").glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """Chat, vectors, ranking, and a stand-in; all loaded at once, behind keys, for one web page."""
    commands = {
        "owl": "exec {server} --embeddings",
        "judge": "exec {server} --rerank",
        "voice": f"exec {{python}} {standin.__file__} {{port}}",
    }
    models = {"owl": embedding(), "judge": embedding(7)}
    keys = [
        {"name": "tester", "sha256": digest(KEY), "admin": True},
        {"name": "guest", "sha256": digest(GUEST), "models": ["ant"], "parallel": 1},
    ]
    with bench(["ant", "judge", "owl", "voice"], commands=commands, models=models) as it:
        it.gateway(it.config(cards={"gpu": 99 * GIB}, keys=keys, origins=["https://chat.example"], body_limit=16 << 20))
        yield it


def digest(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize("case", CASES)
def test_case(lab: Bench, case: dict[str, Any]) -> None:
    """What comes back is what the case says, in every part that it names."""
    assert case["source"]
    asked, wanted = case["request"], case["answer"]
    content = body(asked)
    headers = {"authorization": f"Bearer {KEY}", **asked.get("headers", {})}
    given = {name: value for name, value in headers.items() if value is not None}
    sent = httpx.Request(asked["method"], lab.url + asked["path"], headers=given, **content)
    with httpx.Client(timeout=60) as client:
        response = client.send(sent)
    assert response.status_code == wanted["status"], response.text
    for name, value in wanted.get("headers", {}).items():
        assert response.headers.get(name) == value, (name, response.headers)
    if "json" in wanted:
        matches(response.json(), wanted["json"])
    if "stream" in wanted:
        says(response.text, **wanted["stream"])
    if wanted.get("empty"):
        assert response.content == b""
    if wanted.get("unchanged"):
        unchanged(sent, response.json())
    if wanted["status"] == 200 and asked["method"] == "POST":
        assert response.headers["x-request-id"] not in {"", "the server's own"}
        assert len(response.headers.get_list("x-request-id")) == 1


def body(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a request's body as httpx takes it."""
    if "form" in asked:
        boundary, parts = "----labctl-cut", []
        for name, value in asked["form"]:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
            if isinstance(value, str):
                parts.append(f"{head}\r\n\r\n{value}\r\n".encode())
            else:
                kind = f"\r\nContent-Type: {value['type']}" if "type" in value else ""
                noise = hashlib.shake_256(name.encode()).digest(value["bytes"])
                parts += [f'{head}; filename="{value["filename"]}"{kind}\r\n\r\n'.encode(), noise, b"\r\n"]
        asked.setdefault("headers", {})["content-type"] = f"multipart/form-data; boundary={boundary}"
        return {"content": b"".join([*parts, f"--{boundary}--\r\n".encode()])}
    if "repeat" in asked:
        name, text, count = asked["repeat"]
        return {"json": {**asked["json"], name: text * count}}
    return {"content": asked["text"]} if "text" in asked else {"json": asked["json"]} if "json" in asked else {}


def matches(found: Any, wanted: Any, where: str = "$") -> None:
    """Assert that an answer has what is wanted of it; ``*`` is anything."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            assert key in found, f"{where}.{key} is missing in {found}"
            matches(found[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), f"{where}: {found}"
        for i, value in enumerate(wanted):
            matches(found[i], value, f"{where}[{i}]")
    elif wanted != "*":
        assert (found.strip() if isinstance(found, str) else found) == wanted, where


def says(text: str, *, says: str, usage: bool) -> None:
    """Assert that a stream is one of OpenAI's: chunks, the usage when it was asked for, and the last word."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said.strip() == says
    assert any(chunk.get("usage") for chunk in chunks) is usage


def unchanged(sent: httpx.Request, heard: dict[str, Any]) -> None:
    """Assert that the stand-in was sent the very bytes, as many as declared, and nobody's key."""
    assert heard["sha256"] == hashlib.sha256(sent.read()).hexdigest()
    assert heard["headers"]["content-length"] == sent.headers["content-length"] == str(heard["size"])
    assert heard["headers"]["content-type"] == sent.headers["content-type"]
    assert not {"authorization", "x-api-key", "origin", "cookie"} & heard["headers"].keys()


# --- what no client's library can be told to send ---------------------------------------------------------------------


def raw(lab: Bench, *pieces: bytes, until: bytes = b"") -> bytes:
    """Send bytes, waiting for ``until`` between the first piece and the next; return all that comes back."""
    host, _, port = lab.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(pieces[0])
        got = b""
        while until not in got:
            got += connection.recv(4096)
        for piece in pieces[1:]:
            connection.sendall(piece)
        while more := connection.recv(65536):
            got += more
        return got


BODY = json.dumps({"model": "ant", "messages": [{"role": "user", "content": "hi"}]}).encode()
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n".encode()


def test_a_body_in_chunks(lab: Bench) -> None:
    """Transfer-Encoding: chunked, cut in the middle of words."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(BODY[i : i + 7]), BODY[i : i + 7]) for i in range(0, len(BODY), 7))
    got = raw(lab, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ")
    assert sentence("ant").encode() in got


def test_a_client_that_asks_before_it_sends(lab: Bench) -> None:
    """Expect: 100-continue is answered by the gateway; the server is not asked to expect anything."""
    head = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    got = raw(lab, head, BODY, until=b"100 Continue\r\n\r\n")
    assert sentence("ant").encode() in got


def test_a_client_that_asks_before_it_sends_too_much(lab: Bench) -> None:
    """It is refused by its declared length, without sending anything."""
    form = (
        HEAD.replace(b"chat/completions", b"audio/transcriptions")
        + b"Content-Type: multipart/form-data; boundary=x\r\n"
    )
    got = raw(lab, form + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in got


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (HEAD + b"X-Long: " + b"x" * (2 << 20) + b"\r\n\r\n", 431, "the headers have more than 64 KiB"),
        (b"GET /" + b"x" * (2 << 20) + b" HTTP/1.1\r\n\r\n", 431, "the headers have more than 64 KiB"),
        (b"HELO example.org\r\n\r\n", 400, "Invalid HTTP request received"),
    ],
)
def test_what_is_no_request(lab: Bench, request_: bytes, status: int, message: str) -> None:
    """Refused in OpenAI's shape, and the connection is over."""
    got = raw(lab, request_)
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["message"] == message


def test_the_openai_client_speaks_everything(lab: Bench) -> None:
    """Vectors (base64 by itself), speech, transcriptions, images and responses, by the client of everybody."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{lab.url}/v1", api_key=KEY, max_retries=0)
    assert len(client.embeddings.create(model="owl", input="hello").data[0].embedding) == 64
    assert client.audio.speech.create(model="voice", voice="alloy", input="hi").read() == standin.SOUND
    heard = client.audio.transcriptions.create(model="voice", file=("a.wav", standin.SOUND))
    assert int(heard.text.split()[0]) > len(standin.SOUND)
    assert client.responses.create(model="ant", input="hi").output_text.strip() == sentence("ant")
    events = list(client.responses.create(model="ant", input="hi", stream=True))
    assert events[-1].type == "response.completed"
    assert client.models.retrieve("ant").id == "ant"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
