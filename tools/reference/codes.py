"""The page of diagnostics."""

from __future__ import annotations

from labctl.explain import Page, pages
from tools.reference.text import code, document, table

_HEAD = """\
Every problem that labctl reports has a code that never changes its meaning. `labctl explain CODE` shows the same in the
terminal.
"""


def page() -> str:
    """Return docs/reference/diagnostics.md."""
    known = pages()
    index = table(["code", "title"], [[f"[{c}](#{c.lower()})", p.title] for c, p in known.items()])
    return document("Diagnostics", _HEAD, index, *(_entry(p) for p in known.values()))


def _entry(found: Page) -> str:
    example = ["For example:", code(found.example)] if found.example else []
    return "\n\n".join([f"## {found.code}", f"**{found.title}.** {found.text}", *example, f"*Remedy:* {found.remedy}"])
