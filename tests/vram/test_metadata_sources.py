"""The readers, against real servers on loopback, real files and a real shell."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from labctl.vram.facts import Tensor
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.safetensors import INDEX
from labctl.vram.metadata.sources import Access, read_gguf, read_hf, resolve
from tests.vram.gguf_files import model
from tests.vram.servers import serving
from tests.vram.test_metadata_safetensors import CONFIG, ONE, TWO, pack

TENSORS = (Tensor("token_embd.weight", (64, 300), "Q8_0"), Tensor("blk.0.attn_q.weight", (64, 64), "F16"))
TOKENS = [f"token{n:05}" for n in range(30_000)]
CONTENT = model({"general.architecture": "llama", "tokenizer.ggml.tokens": TOKENS}, TENSORS) + bytes(8 << 20)
SECRET = "hf_s3cretTOKEN"


@pytest.fixture
def impatient() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=httpx.Timeout(1.0), follow_redirects=False, trust_env=False) as client:
        yield client


def test_ranges_fetch_little_more_than_the_header() -> None:
    with serving(CONTENT) as (url, seen):
        facts = read_gguf(f"{url}/file/x.gguf")
    assert (facts.vocab, facts.tensors) == (30_000, TENSORS)
    asked = [tuple(map(int, text.removeprefix("bytes=").split("-"))) for _, _, text in seen]
    assert asked[-1][1] < len(CONTENT) - (6 << 20)
    assert len(asked) <= 5, asked


def test_a_server_that_ignores_ranges_is_read_once_and_left_early() -> None:
    with serving(CONTENT) as (url, seen):
        assert read_gguf(f"{url}/whole/x.gguf").tensors == TENSORS
    assert len(seen) == 1


def test_the_hub_s_redirect_and_its_token() -> None:
    with serving(CONTENT) as (other, away), serving(CONTENT, other) as (hub, seen):
        access = Access(hub=hub, token=SECRET)
        assert read_gguf(f"{hub}/away/x.gguf", access).tensors == TENSORS
        assert read_gguf(f"{hub}/hop/x.gguf", access).tensors == TENSORS
        assert read_gguf("hf://org/repo@v1/a b.gguf", access).tensors == TENSORS
        assert read_gguf(f"{other}/file/x.gguf", access).tensors == TENSORS
    assert all(token == "" for _, token, _ in away)
    assert all(token == f"Bearer {SECRET}" for _, token, _ in seen)
    assert seen[-1][0] == "/org/repo/resolve/v1/a%20b.gguf"
    assert [path for path, _, _ in seen].count("/away/x.gguf") == 1, "the signed address is kept for later ranges"


def test_a_token_does_not_come_back_after_leaving_its_origin() -> None:
    with serving(CONTENT) as (hub, seen):
        with serving(CONTENT, hub) as (other, _), pytest.raises(MetadataError, match="more than"):
            read_gguf(f"{other}/loop", Access(hub=hub, token=SECRET))
        with serving(CONTENT, f"{hub}/file") as (other, _):
            assert read_gguf(f"{other}/away/x.gguf", Access(hub=hub, token=SECRET)).tensors == TENSORS
    assert {token for _, token, _ in seen} == {""}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("status/401", r"asks for a token \(HTTP 401: nothing to see\)"),
        ("status/403", "refuses access"),
        ("said/x", "Access to model x is restricted"),
        ("broken-gzip/x", r"refuses access \(HTTP 403\)"),
        ("status/404", "no such file"),
        ("status/416", "shorter"),
        ("status/429", "too many requests"),
        ("status/500", "problem of its own"),
        ("status/418", "refuses"),
        ("loop", "redirects more than"),
        ("unsafe", "unsafe address"),
        ("wrong-range/x", "another part"),
        ("cut/x", "connection broke"),
        ("silent/x", "did not answer in time"),
    ],
)
def test_every_failure_in_words_without_the_token(impatient: httpx.Client, path: str, words: str) -> None:
    with serving(CONTENT) as (url, seen):
        with pytest.raises(MetadataError, match=words) as caught:
            read_gguf(f"{url}/{path}?X-Signature={SECRET}", Access(hub=url, client=impatient, token=SECRET))
        assert len(seen) <= 9
    assert SECRET not in f"{caught.value} {caught.value.hint} {caught.value!r}"
    assert caught.value.where.startswith("http://127.0.0.1")


def test_one_more_attempt_after_a_503() -> None:
    with serving(CONTENT) as (url, seen):
        assert read_gguf(f"{url}/flaky/x.gguf").tensors == TENSORS
        assert read_gguf(f"{url}/flaky/x.gguf").tensors == TENSORS
    assert len(seen) > 2
    with pytest.raises(MetadataError, match="no connection"):
        read_gguf(f"{url}/file/x.gguf")


def test_access_prints_without_its_token() -> None:
    assert SECRET not in repr(Access(token=SECRET))


@pytest.mark.parametrize("text", ["hf://org", "hf://org/repo", "hf://a/b/../../c", "hf://o r/g/f.gguf", "hf:///x/y"])
def test_what_is_no_hub_address(text: str) -> None:
    with pytest.raises(MetadataError, match="of the form hf:"):
        resolve(text)


def test_hub_addresses() -> None:
    assert resolve("hf://o/r/sub/f.gguf") == "https://huggingface.co/o/r/resolve/main/sub/f.gguf"
    assert resolve("hf://o/r@refs/f.gguf", "http://h:1/") == "http://h:1/o/r/resolve/refs/f.gguf"
    assert resolve("/models/f.gguf") == "/models/f.gguf"


def split(folder: Path) -> str:
    path = folder
    for number in (0, 1):
        metadata = {"general.architecture": "x", "split.count": 2, "split.no": number, "split.tensors.count": 2}
        path = folder / f"m 'q'-{number + 1:05}-of-00002.gguf"
        path.write_bytes(model(metadata, TENSORS[number : number + 1], data=True))
    return str(path)


def test_local_files(tmp_path: Path) -> None:
    assert read_gguf(split(tmp_path)).tensors == TENSORS
    for name, words in (("none.gguf", "no such file"), (".", "folder")):
        with pytest.raises(MetadataError, match=words):
            read_gguf(str(tmp_path / name))
    Path(split(tmp_path)).unlink()
    with pytest.raises(MetadataError, match=r"00002-of-00002.*no such file"):
        read_gguf(str(tmp_path / "m 'q'-00001-of-00002.gguf"))


def test_files_of_another_machine_through_a_shell(tmp_path: Path) -> None:
    commands = []

    def run(command: str) -> bytes:
        commands.append(command)
        done = subprocess.run(["sh", "-c", command], check=False, capture_output=True)
        if done.returncode:
            raise OSError(done.returncode, done.stderr.decode().strip())
        return done.stdout

    assert read_gguf(split(tmp_path), Access(run=run)).tensors == TENSORS
    assert len(commands) == 4
    with pytest.raises(MetadataError, match=r"cannot be read: .*No such file"):
        read_gguf(str(tmp_path / "none"), Access(run=run))


def test_model_folders(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}).encode()
    files = {"config.json": CONFIG, INDEX: index, "1.safetensors": pack(ONE, 4), "2.safetensors": pack(TWO, 4)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert [tensor.name for tensor in read_hf(str(tmp_path)).tensors] == ["a", "b"]
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(MetadataError, match=r"2\.safetensors.*no such file"):
        read_hf(str(tmp_path))
    with pytest.raises(MetadataError, match="has no"):
        read_hf(str(tmp_path / "nowhere"))


def test_a_remote_folder_without_config() -> None:
    with serving(b"") as (url, _), pytest.raises(MetadataError, match="has no"):
        read_hf(f"{url}/status/404")
