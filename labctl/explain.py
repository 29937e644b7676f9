"""The page of every diagnostic code, from ``data/codes.toml``."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from labctl.values import dataclass

_CODE = re.compile(r"(?:lab)?[-_ ]?(\d{1,3})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """What there is to know about a code.

    Attributes:
        code: e.g. ``LAB021``.
        title: a few words.
        text: what is wrong, and why labctl minds.
        example: a piece of lab.yaml or a command that brings it about; may be empty.
        remedy: what to do about it.
    """

    code: str
    title: str
    text: str
    example: str
    remedy: str


class UnknownCodeError(LookupError):
    """There is no such code; ``str(error)`` says which are near."""


def explain(code: str) -> Page:
    """Return the page of a code, written as ``LAB021``, ``lab21`` or ``21``; UnknownCodeError when there is none."""
    known = pages()
    match = _CODE.fullmatch(code.strip())
    name = f"LAB{int(match.group(1)):03d}" if match else code.strip().upper()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3)
    message = f"there is no code `{code}`" + (f"; near it are {', '.join(near)}" if near else "")
    raise UnknownCodeError(message)


@cache
def pages() -> Mapping[str, Page]:
    """Return every page by its code, sorted."""
    table = tomllib.loads((files("labctl") / "data" / "codes.toml").read_text("utf-8"))
    return {code: Page(code, **{key: str(text).strip() for key, text in table[code].items()}) for code in sorted(table)}
