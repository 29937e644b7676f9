"""What lab.yaml says of keys and of web pages reaches the gateway, in a container and as a unit."""

from __future__ import annotations

import json
from typing import Any

import yaml

from labctl.artefact import File
from labctl.render import Rendered
from labctl.swap.config import Config, from_value
from tests.resolve import labs

FILE = "/srv/lab/keys/keys.json"
GATEWAY = {
    "engine": "builtin",
    "origins": ["https://chat.example"],
    "keys": {"file": FILE, "users": {"alice": {"key": "ALICE", "parallel": 2, "per_minute": 30}}},
}


def rendered(**host: Any) -> Rendered:
    """Return a lab with one server and the gateway."""
    return labs.rendered(
        labs.lab({"a": labs.llama(serves=("a",))}, {"box": labs.box("RTX 3090", **host)}, gateway=GATEWAY)
    )


def text(found: Rendered, name: str) -> str:
    """Return the one file whose path ends so."""
    (file,) = [a for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith(name)]
    return file.content.decode()


def config(found: Rendered) -> Config:
    """Return what the gateway is told, as it reads it itself."""
    return from_value(json.loads(text(found, "gateway.json")))


def test_in_a_container() -> None:
    """The file's folder is mounted, read-only: a file that is put in the place of another is seen."""
    found = rendered()
    gateway = yaml.safe_load(text(found, "compose.yaml"))["services"]["gateway"]
    assert gateway["command"][-2:] == ["--keys", "/etc/labctl/keys/keys.json"]
    (mount,) = [v for v in gateway["volumes"] if v["target"] == "/etc/labctl/keys"]
    assert mount["source"] == "/srv/lab/keys"
    assert mount["read_only"] is True
    given = config(found)
    assert given.origins == ("https://chat.example",)
    assert [(k.name, k.parallel, k.per_minute) for k in given.keys if k.name == "alice"] == [("alice", 2, 30)]


def test_as_a_unit() -> None:
    """It reads the file where it lies."""
    assert f"--keys {FILE}" in text(rendered(target="systemd"), "gateway.service")
