"""The gateway's own modules and what is shipped beside them: as constant as the code."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

PACKAGE: Final = "labctl.swap"


def shipped(name: str) -> str:
    """Return the text of a file that goes with the gateway to its host."""
    return resources.files("labctl.gateways.builtin").joinpath("shipped", name).read_text(encoding="utf-8")


@cache
def package() -> dict[str, str]:
    """Return the gateway's modules and its page: file name → text."""
    folder = resources.files(PACKAGE)
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith((".py", ".html")))
    return {name: folder.joinpath(name).read_text(encoding="utf-8") for name in names}


def libraries() -> tuple[str, ...]:
    """Return the modules of others that the gateway imports. uvloop makes it faster, and is not missed."""
    names = (line.partition("==")[0] for line in shipped("requirements.txt").split())
    return tuple(name.replace("-", "_") for name in names if name != "uvloop")
