"""Printing results: diagnostics to people on stderr, or everything as one JSON object on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from labctl.diagnostics import Diagnostic, LabctlError
from labctl.views.console import Printer
from labctl.views.diagnostics import render_diagnostics, to_json


def printer() -> Printer:
    """Return the printer for this process's streams and environment."""
    return Printer.of(sys.stdout, sys.stderr, os.environ)


def show_diagnostics(diagnostics: Iterable[Diagnostic], *, json: bool) -> None:
    """Print diagnostics: as ``{"diagnostics": […]}`` on stdout with ``json``, else as text on stderr."""
    if json:
        printer().data_json({"diagnostics": to_json(diagnostics)})
        return
    text = render_diagnostics(diagnostics, colour=printer().colour)
    if text:
        printer().say(text)


def check(diagnostics: tuple[Diagnostic, ...], *, json: bool = False) -> None:
    """Raise LabctlError when one of them is an error; else print the warnings, unless ``json``."""
    if any(d.is_error for d in diagnostics):
        raise LabctlError(diagnostics)
    if not json:
        show_diagnostics(diagnostics, json=False)
