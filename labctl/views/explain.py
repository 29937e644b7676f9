"""The page of a code as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from textwrap import fill, indent

from labctl.explain import Page


def render_page(page: Page) -> str:
    """Return a page as text of at most 100 columns."""
    parts = [f"{page.code}: {page.title}", _wrapped(page.text)]
    if page.example:
        parts.append("Example\n\n" + indent(page.example, "    "))
    return "\n\n".join([*parts, "What to do\n\n" + _wrapped(page.remedy)])


def page_json(page: Page) -> dict[str, str]:
    """Return a page as a JSON value."""
    return asdict(page)


def _wrapped(text: str) -> str:
    return "\n\n".join(fill(" ".join(p.split()), width=100) for p in text.split("\n\n"))
