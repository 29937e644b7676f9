"""One sentence for every name that is not known: what it is, the nearest known one, or all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from labctl.diagnostics import At, Diagnostic, DocPath

_SHORT_LIST = 12


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like ``name``, or None when none is near."""
    folded = {k.lower(): k for k in sorted(known, reverse=True)}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def unknown_name(
    code: str, what: str, name: str, known: Iterable[str], path: DocPath, *, key: bool = False
) -> Diagnostic:
    """Return the diagnostic for a name that is not among ``known``."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        hint = f"did you mean `{near}`?"
    elif not names:
        hint = f"this lab has no {what}"
    else:
        hint = "known: " + ", ".join(f"`{n}`" for n in names[:_SHORT_LIST]) + ("…" if len(names) > _SHORT_LIST else "")
    return Diagnostic(
        code=code,
        summary=f"unknown {what} `{name}`",
        path=path,
        at=At.KEY if key else At.VALUE,
        hint=hint,
    )
