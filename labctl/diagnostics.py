"""Diagnostics: problems as data, found in one place and located in another.

A rule deep inside the program knows *which part of the document* is at fault (a ``DocPath``); only whoever still
holds the document knows the line. So a rule emits a ``Diagnostic`` with a path, and ``labctl.document`` later fills
its ``span`` in. Views turn the same object into text or JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Generic, TypeVar

from labctl.values import dataclass

DocPath = tuple[str | int, ...]
"""Keys and list indices from the top of the document, e.g. ``("hosts", "ash", "gpus", 0, "model")``."""

T = TypeVar("T")
U = TypeVar("U")


class Severity(StrEnum):
    """How bad it is: an error stops every command, a warning or a note never does."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class At(StrEnum):
    """Which part of a mapping entry a diagnostic points at."""

    KEY = "key"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text file. Lines and columns are 1-based; ``end_column`` is exclusive and on ``line``'s row."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    source: str = ""
    """The text of the first line, without its line end, for the snippet."""


@dataclass(frozen=True, slots=True)
class Related:
    """A second place worth seeing, e.g. the first of two duplicate keys."""

    message: str
    path: DocPath | None = None
    span: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem.

    Attributes:
        code: stable, e.g. ``LAB021``; ``labctl explain LAB021`` shows its page.
        summary: one sentence in plain words, no full stop, names in backticks.
        detail: optional further lines, e.g. the arithmetic of a budget.
        path: the part of the document at fault; None for problems outside it.
        at: whether the key or the value of that path is to be underlined.
        span: filled in by ``labctl.document``; None until then or when there is no document.
        label: short text beside the caret.
        hint: the remedy, in the imperative.
        related: other places that belong to the problem.
    """

    code: str
    summary: str
    severity: Severity = Severity.ERROR
    detail: str = ""
    path: DocPath | None = None
    at: At = At.VALUE
    span: Span | None = None
    label: str = ""
    hint: str = ""
    related: tuple[Related, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether this stops the command."""
        return self.severity is Severity.ERROR

    def with_span(self, span: Span | None) -> Diagnostic:
        """Return a copy that knows where it is."""
        return replace(self, span=span)


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """A stage's value, or None, and everything there is to say about it.

    A value may come with errors (later stages can still find more problems with it); ``ok`` tells whether it may be
    acted upon.
    """

    value: T | None
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def ok(self) -> bool:
        """True when there is a value and no diagnostic is an error."""
        return self.value is not None and not any(d.is_error for d in self.diagnostics)

    def adding(self, diagnostics: Iterable[Diagnostic]) -> Result[T]:
        """Return a copy with more diagnostics."""
        return Result(self.value, (*self.diagnostics, *diagnostics))


class ExitCode:
    """Every exit status of labctl, documented in docs/reference/exit-codes.md."""

    OK = 0
    """Nothing to do, or done."""
    ERROR = 1
    """The lab has errors, or a command could not do what it was asked."""
    CHANGES = 2
    """``plan --detailed-exitcode`` or ``render --check``: there are differences (also: wrong command-line usage)."""
    PARTIAL = 4
    """Apply or destroy finished on some hosts or workloads and failed on others."""
    STALE = 5
    """A saved plan no longer matches the lab or the hosts."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C (or SIGTERM, SIGHUP): by the first between two steps, by a second one at once."""


class LabctlError(Exception):
    """The one exception that crosses from a use case to the CLI: diagnostics and an exit code, no traceback."""

    def __init__(self, diagnostics: Iterable[Diagnostic], exit_code: int = ExitCode.ERROR) -> None:
        self.diagnostics = tuple(diagnostics)
        self.exit_code = exit_code
        super().__init__("; ".join(f"{d.code}: {d.summary}" for d in self.diagnostics))
