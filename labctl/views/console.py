"""The two streams: what can be piped goes to stdout, all that is said to people goes to stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from labctl.values import dataclass


@dataclass(frozen=True, slots=True)
class Printer:
    """Writes data to one stream and messages to the other.

    Attributes:
        colour: whether messages may carry ANSI colours; everything reads the same without them.
    """

    out: TextIO
    err: TextIO
    colour: bool = False

    @classmethod
    def of(cls, out: TextIO, err: TextIO, environment: Mapping[str, str]) -> Printer:
        """Return a printer that colours messages for a terminal, unless NO_COLOR or a dumb terminal says no."""
        wanted = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        forced = environment.get("FORCE_COLOR", "") not in {"", "0"}
        return cls(out, err, wanted and (forced or err.isatty()))

    def data(self, text: str) -> None:
        """Write a result, with a line end."""
        self.out.write(f"{text}\n")

    def data_json(self, value: Any) -> None:
        """Write a result as indented JSON."""
        self.data(json.dumps(value, indent=2, ensure_ascii=False))

    def say(self, text: str) -> None:
        """Write a message for people, with a line end."""
        self.err.write(f"{text}\n")
        self.err.flush()
