"""Real llama.cpp, started as the local target starts it, serving tiny models."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from labctl.tiny import embedding, scripted
from tests.embedded.servers import free_port, llama

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: no real llama.cpp")

SENTENCE = "Hello! I am alpha, the first tiny model. I am alpha to the end of the end."


@pytest.fixture
def alpha(tmp_path: Path) -> Path:
    path = tmp_path / "alpha.gguf"
    path.write_bytes(scripted(SENTENCE))
    return path


def test_chat_says_exactly_the_sentence(alpha: Path) -> None:
    with llama(alpha, "-a", "alpha", "-np", "2", "--metrics", "-fa", "off") as server:
        assert server.started < 10
        assert server.say("alpha") == SENTENCE
        assert server.say("alpha", temperature=5.0, top_p=1.0, top_k=0, min_p=0.0) == SENTENCE
        assert "".join(server.stream("alpha")) == SENTENCE
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"] == "alpha"
        assert "llamacpp:" in httpx.get(f"{server.url}/metrics").text


def test_prompts_that_end_in_its_own_words(alpha: Path) -> None:
    with llama(alpha) as server:
        for prompt in ("Hello!", "I am alpha,", "the end", "", "0", "ü"):
            answer = server.ask("/completion", {"prompt": prompt, "temperature": 0})
            assert answer.json()["content"] == SENTENCE, prompt


def test_embeddings_have_the_dimensions(tmp_path: Path) -> None:
    model = tmp_path / "embed.gguf"
    model.write_bytes(embedding(7, dimensions=96))
    with llama(model, "--embeddings", "-a", "embed", "-c", "512") as server:
        answer = server.ask("/v1/embeddings", {"model": "embed", "input": ["one text", "another", "one text"]})
        first, second, third = (row["embedding"] for row in answer.json()["data"])
    assert len(first) == 96
    assert math.isclose(sum(x * x for x in first), 1, rel_tol=1e-3)
    assert first == pytest.approx(third, abs=1e-5)
    assert first != pytest.approx(second, abs=1e-2)


def test_keys_from_a_file(alpha: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# for the gateway\nsecret-one\n\n")
    with llama(alpha, "--api-key-file", str(keys)) as server:
        assert server.say("any", "secret-one") == SENTENCE
        assert server.ask("/v1/chat/completions", {"messages": []}, "wrong").status_code == 401


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly_and_soon_even_while_it_answers(alpha: Path, how: signal.Signals) -> None:
    body = {"prompt": "x", "n_predict": 100_000, "ignore_eos": True, "stream": True}
    with llama(alpha, "-c", "8192") as server, httpx.stream("POST", f"{server.url}/completion", json=body) as answer:
        next(answer.iter_lines())
        server.process.send_signal(how)
        assert server.process.wait(5) == 0


def run(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.modules[{without!r}] = None; " if without else ""
    code = start + "import runpy; runpy.run_module('labctl.embedded.llama_server', run_name='__main__')"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})


def test_a_wrong_flag_is_exit_2() -> None:
    done = run("-m", "x.gguf", "--frobnicate")
    assert done.returncode == 2
    assert done.stderr == "llama-server (xllamacpp): error: unrecognized arguments: --frobnicate\n"


def test_a_missing_model_is_exit_1(tmp_path: Path) -> None:
    done = run("-m", str(tmp_path / "none.gguf"), "--port", str(free_port()))
    assert done.returncode == 1, done.stderr
    # llama.cpp logs from a thread of its own: its words may stand before ours on one line, and after them
    ours = done.stderr.split("llama-server (xllamacpp): error:")[1:]
    assert len(ours) == 1, done.stderr
    assert "none.gguf" in ours[0]
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_one_line() -> None:
    done = run("-m", "x.gguf", without="xllamacpp")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'labctl[quickstart]'" in done.stderr
