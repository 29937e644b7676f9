"""The swap-box example, with other gateways in the place of labctl's own: one line of it is another."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import yaml

from labctl.artefact import File
from labctl.render import Rendered
from labctl.usecases import load
from tests.gateways.llama_swap_strict import argument, read
from tests.gateways.matrix import expansions

EXAMPLE = Path(__file__).parents[2] / "examples/swap-box"
GATEWAY = re.compile(r"^gateway:.*$", re.MULTILINE)


def with_gateway(folder: Path, gateway: str) -> Rendered:
    """Return what the example renders to with another gateway."""
    text, count = GATEWAY.subn(f"gateway: {gateway}", (EXAMPLE / "lab.yaml").read_text())
    assert count == 1
    for path in EXAMPLE.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "lab.yaml").write_text(text)
    return load(folder).need_rendered()


def file(found: Rendered, end: str) -> str:
    (content,) = [a.content for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith(end)]
    return content.decode()


def test_with_llama_swap(tmp_path: Path) -> None:
    """Twelve models, one card: every largest set is within its budget, and none could take one more."""
    found = with_gateway(tmp_path, "{engine: llama-swap, host: halo, idle: 1 h}")
    config = read(file(found, "gateway/config.yaml"))
    assert len(config.models) == 12
    assert argument(config.models["qwen3-coder-30b"], "--ctx-size") == "262144"
    assert argument(config.models["gpt-oss-120b"], "--model").endswith("-00001-of-00002.gguf")
    (card,) = found.placed.ledger.gpus
    size = {entry.server: entry.total for entry in card.entries}
    room = card.gpu.memory - card.gpu.reserve
    assert config.routing is not None
    held = expansions(config.routing.router.settings.matrix.model_dump())
    biggest = [some for some in held if not any(some < other for other in held)]
    assert len(biggest) > 1
    for some in biggest:
        left = room - sum(size[name] for name in some)
        assert left >= 0
        assert all(size[name] > left for name in size.keys() - some)
    assert set(yaml.safe_load(file(found, "compose.yaml"))["services"]) == {"gateway"}


def test_with_the_router(tmp_path: Path) -> None:
    """The number of which any fit: the largest of them together do, and with the next one they do not."""
    found = with_gateway(tmp_path, "{engine: llama-router, host: halo}")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(file(found, "gateway/presets.ini"))
    assert len(parser.sections()) == 12
    words = yaml.safe_load(file(found, "compose.yaml"))["services"]["gateway"]["command"]
    number = int(words[words.index("--models-max") + 1])
    (card,) = found.placed.ledger.gpus
    sizes = sorted((entry.total for entry in card.entries), reverse=True)
    room = card.gpu.memory - card.gpu.reserve
    assert sum(sizes[:number]) <= room < sum(sizes[: number + 1])
