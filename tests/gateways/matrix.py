"""What llama-swap makes of a matrix: an own reading of its little language (internal/matrix/doc.go, v250)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

_WORD = re.compile(r"\s*(\+?[\w.-]+|[&|()])")


def expansions(matrix: Mapping[str, Any]) -> frozenset[frozenset[str]]:
    """Return every set of models that the matrix names; each allows all that is part of it, too."""
    sets: Mapping[str, str] = matrix["sets"]

    @cache
    def of(name: str) -> frozenset[frozenset[str]]:
        words = _words(sets[name])
        found = _either(words, matrix["vars"], of)
        assert not words, f"{name}: {words} is left over"
        return found

    return frozenset(some for name in sets for some in of(name))


def _words(text: str) -> list[str]:
    words = _WORD.findall(text)
    assert "".join(words) == text.replace(" ", ""), text
    return words


def _either(words: list[str], models: Mapping[str, str], of: Any) -> frozenset[frozenset[str]]:
    found = _both(words, models, of)
    while words[:1] == ["|"]:
        words.pop(0)
        found |= _both(words, models, of)
    return found


def _both(words: list[str], models: Mapping[str, str], of: Any) -> frozenset[frozenset[str]]:
    found = _one(words, models, of)
    while words[:1] == ["&"]:
        words.pop(0)
        other = _one(words, models, of)
        found = frozenset(a | b for a in found for b in other)
    return found


def _one(words: list[str], models: Mapping[str, str], of: Any) -> frozenset[frozenset[str]]:
    word = words.pop(0)
    if word == "(":
        found = _either(words, models, of)
        assert words.pop(0) == ")"
        return found
    return of(word[1:]) if word.startswith("+") else frozenset({frozenset({models[word]})})
