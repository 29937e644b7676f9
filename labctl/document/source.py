"""A text file and the arithmetic between character offsets and lines."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from labctl.diagnostics import Span

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, eq=False)
class Source:
    """The text of one file. Offsets count characters from 0, lines and columns from 1."""

    file: str
    text: str
    _starts: list[int] = field(init=False, repr=False)
    _lines: dict[int, str] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        starts = [0, *(match.end() for match in _LINE_END.finditer(self.text))]
        object.__setattr__(self, "_starts", starts)

    def line_of(self, offset: int) -> int:
        """Return the line that holds an offset."""
        return bisect_right(self._starts, offset)

    def column_of(self, offset: int) -> int:
        """Return the column of an offset in its line."""
        return offset - self._starts[self.line_of(offset) - 1] + 1

    def start_of(self, line: int) -> int:
        """Return the offset of a line's first character."""
        return self._starts[line - 1]

    def line(self, number: int) -> str:
        """Return a line without its line end; every caller gets the same string object."""
        known = self._lines.get(number)
        if known is None:
            start = self._starts[number - 1]
            end = self._starts[number] if number < len(self._starts) else len(self.text)
            known = self._lines[number] = self.text[start:end].rstrip("\r\n")
        return known

    def span(self, start: int, end: int) -> Span:
        """Return the span from ``start`` up to but not including ``end``, at least one column wide."""
        start = min(start, len(self.text))
        line, column = self.line_of(start), self.column_of(start)
        text = self.line(line)
        last = max(start, end - 1)
        end_line = self.line_of(min(last, len(self.text)))
        end_column = column + (end - start) if end_line == line else len(text.rstrip()) + 1
        return Span(self.file, line, column, end_line, max(end_column, column + 1), text)


class Place(NamedTuple):
    """A stretch of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """The line it starts on."""
        return self.source.line_of(self.start)

    def span(self) -> Span:
        """Return it in lines and columns."""
        return self.source.span(self.start, self.end)
