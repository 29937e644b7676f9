"""Markdown from values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTE = "<!-- Written by `python -m tools.reference --write`: do not edit. -->"


def document(title: str, *parts: str) -> str:
    """Return a page with a title and a note that it is generated."""
    return "\n\n".join([f"# {title}", NOTE, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar inside a cell is escaped."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str, language: str = "") -> str:
    """Return a block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def first_sentence(doc: str | None) -> str:
    """Return the first line of a docstring, in Markdown."""
    return (doc or "").strip().partition("\n")[0].replace("``", "`")
