"""Secrets that were written into lab.yaml: found by their shape, named by their place, never shown again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from labctl.diagnostics import Diagnostic, DocPath, Related, Span

MASK: Final = "***"

_SHAPES: Final = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{8,}|sk_[A-Za-z0-9_]{12,}|hf_[A-Za-z0-9]{12,}|ghp_[A-Za-z0-9]{20,}|xox[abp]-[A-Za-z0-9-]{10,}"
    r"|AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}|tskey-[A-Za-z0-9-]{10,}|glpat-[A-Za-z0-9_-]{15,})"
    r"|\b(?:gsk_|xai-|pk-lf-)[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r"|\b[a-z][a-z0-9+]*://[^/\s:@]+:[^/\s@$]{3,}@"
    r"|https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/\S+"
)
"""Prefixes that providers document for their keys: OpenAI and LiteLLM, Stripe, Hugging Face, GitHub, Slack, AWS,
Google, Tailscale, GitLab, Groq, xAI, Langfuse; web tokens; URLs with a password; and webhook addresses, which are keys
too."""
_DEFAULTED: Final = re.compile(r"\$\{[A-Za-z_]\w*(:?[-=?+])?[^}]*\}")


def literal_secrets(data: Any, path: DocPath = ()) -> Iterator[tuple[DocPath, str]]:
    """Yield the place and the text of every value that looks like a secret."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from literal_secrets(value, (*path, str(key)))
    elif isinstance(data, list | tuple):
        for i, value in enumerate(data):
            yield from literal_secrets(value, (*path, i))
    elif isinstance(data, str) and (match := _SHAPES.search(data)):
        yield path, match[0]


def secret_problems(data: Any) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each secret that is written out, and for each shell-like default."""
    written = [path for path, _ in literal_secrets(data)]
    for path in written:
        yield Diagnostic(
            code="LAB096",
            summary=f"a secret is written into the lab, at `{'.'.join(map(str, path))}`",
            path=path,
            hint=f"put it into the secrets source and write {_instead(path)} here; change it if this file was shared",
        )
    for path, text in substitutions(data):
        if path in written:
            continue
        yield Diagnostic(
            code="LAB097",
            summary=f"`{text}` would be taken as it is: labctl fills in no shell variables",
            path=path,
            hint="for a secret write `{secret: NAME}`; for anything else write the value",
        )


def _instead(path: DocPath) -> str:
    return "`{secret: NAME}`" if "env" in path else "its name"


def substitutions(data: Any, path: DocPath = ()) -> Iterator[tuple[DocPath, str]]:
    """Yield the place and the variable of every ``${NAME}`` and ``${NAME:-default}``, the default left out."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from substitutions(value, (*path, str(key)))
    elif isinstance(data, list | tuple):
        for i, value in enumerate(data):
            yield from substitutions(value, (*path, i))
    elif isinstance(data, str) and (match := _DEFAULTED.search(data)):
        yield path, re.sub(r"([A-Za-z_]\w*)(:?[-=?+]).*\}", r"\1\2…}", match[0])


def masked(diagnostics: Sequence[Diagnostic], data: Any) -> tuple[Diagnostic, ...]:
    """Return located diagnostics that show none of the written-out secrets, in no snippet and no sentence."""
    values = [text for _, text in literal_secrets(data)]
    values += [m[0] for m in _defaults(data)]
    return tuple(_mask(d, values) for d in diagnostics) if values else tuple(diagnostics)


def _defaults(data: Any) -> list[re.Match[str]]:
    if isinstance(data, dict):
        return [m for v in data.values() for m in _defaults(v)]
    if isinstance(data, list | tuple):
        return [m for v in data for m in _defaults(v)]
    return list(re.finditer(r"(?<=[-=])[^}]{6,}(?=\})", data)) if isinstance(data, str) and "${" in data else []


def _mask(diagnostic: Diagnostic, values: Sequence[str]) -> Diagnostic:
    return replace(
        diagnostic,
        summary=_without(diagnostic.summary, values),
        detail=_without(diagnostic.detail, values),
        hint=_without(diagnostic.hint, values),
        span=_span(diagnostic.span, values),
        related=tuple(Related(_without(r.message, values), r.path, _span(r.span, values)) for r in diagnostic.related),
    )


def _span(span: Span | None, values: Sequence[str]) -> Span | None:
    return None if span is None else replace(span, source=_without(span.source, values))


def _without(text: str, values: Sequence[str]) -> str:
    """Return the text with each value as asterisks of the same length, so that carets stay where they were."""
    for value in values:
        text = text.replace(value, MASK.ljust(len(value), "*"))
    return text
