"""Syntax errors in plain words, at the place where a person would look for the mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from labctl.diagnostics import Diagnostic, Related, Span
from labctl.document.source import Place, Source


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What the parser said: where it stopped, what it was reading, and since where."""

    source: Source
    problem: str
    context: str
    at: int
    since: int | None

    def here(self) -> Span:
        return self.source.span(self.at, self.at + 1)

    def there(self) -> Span:
        return self.source.span(self.at if self.since is None else self.since, (self.since or self.at) + 1)

    @property
    def before(self) -> str:
        """The part of the line before the place."""
        line = self.source.line(self.source.line_of(self.at))
        return line[: self.source.column_of(self.at) - 1]

    @property
    def character(self) -> str:
        return self.source.text[self.at : self.at + 1]


def explain_syntax(source: Source, error: Any, open_bracket: int | None, last_quoted: Place | None) -> Diagnostic:
    """Return the diagnostic for an error of ruamel's parser, C or Python.

    Args:
        source: the text.
        error: a MarkedYAMLError (marks may be missing) or a ReaderError.
        open_bracket: where the innermost bracket opened that is not closed yet.
        last_quoted: the last quoted text that runs over several lines; when the error comes right behind it, its
            closing quote is probably that of the next quoted text.
    """
    trouble = _trouble(source, error)
    if open_bracket is not None and not source.text[trouble.at :].strip():
        trouble = replace(trouble, problem="expected ',' or", since=open_bracket)
    diagnostic = _tab(trouble) or _glued(trouble) or _known(trouble)
    if last_quoted and _follows(source, last_quoted, trouble.at):
        opened = last_quoted._replace(end=last_quoted.start + 1).span()
        note = Related("this quoted text runs over several lines: is its closing quote missing?", span=opened)
        diagnostic = replace(diagnostic, related=(*diagnostic.related, note))
    return diagnostic


def _trouble(source: Source, error: Any) -> _Trouble:
    mark = getattr(error, "problem_mark", None)
    since = getattr(error, "context_mark", None)
    at = mark.index if mark is not None else getattr(error, "position", 0)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    size = len(source.text)
    return _Trouble(
        source, problem, getattr(error, "context", None) or "", min(at, size), min(since.index, size) if since else None
    )


def _follows(source: Source, quoted: Place, at: int) -> bool:
    return quoted.end <= at and source.line_of(at) - source.line_of(quoted.end) <= 1


def _tab(trouble: _Trouble) -> Diagnostic | None:
    number = trouble.source.line_of(trouble.at)
    line = trouble.source.line(number)
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    start = trouble.at - trouble.source.column_of(trouble.at) + 1
    if "\t" in indent:
        tab = start + indent.index("\t")
        return Diagnostic(
            code="LAB005",
            summary="a tab in the indentation",
            span=trouble.source.span(tab, start + len(indent)),
            hint="indent with spaces; most editors can convert tabs",
        )
    if trouble.character == "\t" or "tab character" in trouble.problem:
        span = trouble.source.span(trouble.at, trouble.at + 1)
        return Diagnostic(code="LAB005", summary="a tab where YAML wants a space", span=span, hint="write a space")
    return None


def _glued(trouble: _Trouble) -> Diagnostic | None:
    """Find `key:value` without a space, in the line of a misplaced `key:` or in the one that goes on above it."""
    if not _MISPLACED.search(trouble.problem) or ": " in trouble.before:
        return None
    last = trouble.source.line_of(trouble.at)
    for number in range(last, max(0, last - 3), -1):
        match = _NO_SPACE.match(trouble.source.line(number))
        if match:
            start = trouble.source.start_of(number)
            colon = start + match.end(1)
            span = trouble.source.span(start + match.start(1), colon + 1)
            hint = f"write `{match.group(1)}: …`; without the space the whole word is text"
            return Diagnostic(code="LAB004", summary="a space is missing behind the colon", span=span, hint=hint)
    return None


def _known(trouble: _Trouble) -> Diagnostic:
    for pattern, explain in _EXPLANATIONS:
        if pattern.search(trouble.problem):
            return explain(trouble)
    return _make(trouble, f"not valid YAML: {trouble.problem}")


def _make(trouble: _Trouble, summary: str, *, hint: str = "", label: str = "", code: str = "LAB004") -> Diagnostic:
    return Diagnostic(code=code, summary=summary, span=trouble.here(), hint=hint, label=label)


def _end_of_text(trouble: _Trouble) -> Diagnostic:
    if "quoted" not in trouble.context:
        return _make(trouble, "the file ends in the middle of a value")
    summary = "this quote is never closed"
    return Diagnostic(code="LAB004", summary=summary, span=trouble.there(), hint="add the closing quote")


def _bracket(trouble: _Trouble) -> Diagnostic:
    opening = trouble.source.text[trouble.since or 0 : (trouble.since or 0) + 1]
    closing = "]" if opening == "[" else "}"
    same_line = trouble.source.line_of(trouble.at) == trouble.source.line_of(trouble.since or 0)
    if same_line and trouble.character not in {"", "\n", "\r"}:
        opened = (Related("opened here", span=trouble.there()),)
        hint = f"separate entries by `,`, close with `{closing}`, and quote text that holds `,`, `:` or brackets"
        return replace(_make(trouble, f"expected `,` or `{closing}` here", hint=hint), related=opened)
    noticed = (Related("read up to here", span=trouble.here()),) if trouble.at < len(trouble.source.text) else ()
    diagnostic = Diagnostic(
        code="LAB004",
        summary=f"this `{opening}` is never closed",
        span=trouble.there(),
        hint=f"add the `{closing}`, and a `,` between entries",
    )
    return replace(diagnostic, related=noticed)


def _colon(trouble: _Trouble) -> Diagnostic:
    if ": " in trouble.before:
        hint = "put the value in quotes if the colon belongs to it; otherwise start a new line for the next key"
        return _make(trouble, "a second `key:` on the same line", hint=hint)
    hint = "indent it as the lines around it; a key has either a value behind its `:` or indented lines below it"
    return _make(trouble, "a `key:` where the value above it is still going on", hint=hint)


def _no_colon(trouble: _Trouble) -> Diagnostic:
    line = trouble.source.line(trouble.source.line_of(trouble.since or trouble.at)).strip()
    shown = line if len(line) < 40 else f"{line[:40]}…"
    start = trouble.at if trouble.since is None else trouble.since
    span = trouble.source.span(start, start + max(1, len(line)))
    summary = f"`{shown}` is not followed by a `:`"
    hint = "write `key: value`; a value may go on in the next line only if that is indented further than its key"
    return Diagnostic(code="LAB004", summary=summary, span=span, hint=hint)


def _block_mapping(trouble: _Trouble) -> Diagnostic:
    if trouble.character and trouble.character in "}]":
        return _make(
            trouble, f"this `{trouble.character}` closes nothing", hint="delete it, or add its opening bracket"
        )
    if trouble.before.strip():
        return _make(trouble, "more text after the end of the value", hint="put the whole value in one pair of quotes")
    column = trouble.source.column_of(trouble.since or 0)
    above = (Related(f"the keys that it could stand beside start in column {column}", span=trouble.there()),)
    hint = "give every key of a mapping the same indentation"
    return replace(_make(trouble, "the indentation of this line fits nothing above it", hint=hint), related=above)


def _block_sequence(trouble: _Trouble) -> Diagnostic:
    above = (Related("the list starts here", span=trouble.there()),)
    hint = "start each entry of a list with `- ` in the same column; end the list with a line that is indented less"
    return replace(_make(trouble, "expected the next `- ` of the list here", hint=hint), related=above)


def _bad_start(trouble: _Trouble) -> Diagnostic:
    return _make(trouble, f"unquoted text cannot start with `{trouble.character}`", hint="put the value in quotes")


def _escape(trouble: _Trouble) -> Diagnostic:
    start = trouble.source.text.rfind("\\", 0, trouble.at + 2)
    moved = replace(trouble, at=max(start, 0))
    shown = trouble.source.text[moved.at : moved.at + 2]
    hint = "use single quotes, in which a backslash is only a backslash, or double it"
    return _make(moved, f"`{shown}` is not an escape that YAML knows in double quotes", hint=hint)


def _character_code(trouble: _Trouble) -> Diagnostic:
    hint = "write the character itself, or `\\x41`, `\\u0041`, `\\U00000041` with the code of a character"
    return _make(trouble, "this escape stands for no character", hint=hint)


def _directive(trouble: _Trouble) -> Diagnostic:
    return _make(
        trouble, "a line that starts with `%` is a directive", code="LAB008", hint="delete it, or quote the text"
    )


def _no_list(trouble: _Trouble) -> Diagnostic:
    return _make(
        trouble, "a list cannot start on the line of its key", hint="start the list on the next line, or write `[a, b]`"
    )


def _no_content(trouble: _Trouble) -> Diagnostic:
    if trouble.character:
        return _make(
            trouble, f"expected a value here, not `{trouble.character}`", hint="write the value, or delete this"
        )
    return _make(trouble, "expected a value here, but the file ends")


def _after_end(trouble: _Trouble) -> Diagnostic:
    return _make(trouble, "text after the end of the document", code="LAB009", hint="delete the `...` line")


def _version(trouble: _Trouble) -> Diagnostic:
    return _make(trouble, "labctl reads YAML 1.2", code="LAB008", hint="delete the `%YAML` line")


def _complex_key(trouble: _Trouble) -> Diagnostic:
    return _make(trouble, "`? ` starts a key that is no plain name", hint="write `name: value`, or quote the text")


def _anchor(trouble: _Trouble) -> Diagnostic:
    return _make(
        trouble, "an anchor or alias needs a name of letters, digits, `-` and `_`", hint="e.g. `&chat`, `*chat`"
    )


def _tag_handle(trouble: _Trouble) -> Diagnostic:
    return _make(
        trouble, "a tag that nothing declares", code="LAB008", hint="delete it; to start text with `!`, quote it"
    )


def _block_text(trouble: _Trouble) -> Diagnostic:
    return _make(
        trouble, "text behind the `|` or `>` that opens a block of text", hint="start the text on the next line"
    )


_MISPLACED: Final = re.compile("mapping values are not allowed|could not find expected ':'")
_NO_SPACE: Final = re.compile(r"\s*(?:- +)?([A-Za-z_][\w.-]*):(?!//)\S")
_EXPLANATIONS: Final[tuple[tuple[re.Pattern[str], Callable[[_Trouble], Diagnostic]], ...]] = tuple(
    (re.compile(pattern), explain)
    for pattern, explain in (
        ("unexpected end of stream|unexpected document (indicator|separator)", _end_of_text),
        ("expected ',' or", _bracket),
        ("mapping values are not allowed|unexpected ':'", _colon),
        ("could not find expected ':'", _no_colon),
        ("did not find expected '-' indicator", _block_sequence),
        ("did not find expected key|expected <block end>", _block_mapping),
        ("cannot start any token", _bad_start),
        ("unknown escape character", _escape),
        ("escape code|hexdecimal|escape sequence of|expected escape sequence", _character_code),
        ("directive", _directive),
        ("sequence entries are not allowed", _no_list),
        ("expected (the )?node content", _no_content),
        ("expected '?<document start>|non-comment content after", _after_end),
        ("incompatible YAML document", _version),
        ("expected alphabetic or numeric", _anchor),
        ("undefined tag handle|URI|expected '!'|expected ' '|expected whitespace or", _tag_handle),
        ("mapping keys are not allowed", _complex_key),
        ("expected (a )?comment or (a )?line break|expected chomping", _block_text),
    )
)
