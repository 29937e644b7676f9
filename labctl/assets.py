"""Finds templates and blueprints: the user's, the lab's own, the shipped ones, in that order.

In an editable checkout the shipped ones are the top-level folders (build tools copy ``force-include`` folders once, and
the copy goes stale); in a wheel they are ``labctl/_data``. The working directory never matters.
"""

from __future__ import annotations

import os
from pathlib import Path

from labctl.diagnostics import Diagnostic, LabctlError

PACKAGE = Path(__file__).parent


def shipped(kind: str) -> Path:
    """Return the folder of shipped ``templates`` or ``blueprints``."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return PACKAGE / "_data" / kind


def user_folder(kind: str) -> Path:
    """Return the user's own folder of templates or blueprints."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "labctl" / kind


class Assets:
    """The templates that one lab sees, and the files that lie beside its lab.yaml."""

    def __init__(self, lab: Path) -> None:
        self.lab = lab
        self.folders = (lab / "templates", user_folder("templates"), shipped("templates"))

    def text(self, name: str) -> str:
        """Return a template's text; LabctlError when there is none or it cannot be read."""
        for folder in self.folders:
            path = (folder / name).resolve()
            if path.is_file() and path.is_relative_to(folder.resolve()):
                return _read(path)
        raise LabctlError([Diagnostic(code="LAB098", summary=f"there is no template `{name}`")])

    def beside(self, name: str) -> str:
        """Return the text of a file in the lab's folder; LabctlError when there is none or it cannot be read."""
        path = (self.lab / name).resolve()
        if not path.is_relative_to(self.lab.resolve()):
            hint = "name it as seen from lab.yaml, without `..`"
            raise LabctlError([Diagnostic(code="LAB257", summary=f"`{name}` is not in the lab's folder", hint=hint)])
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            summary, hint = f"`{name}` beside lab.yaml cannot be read: {reason}", "put it there, or correct its name"
            raise LabctlError([Diagnostic(code="LAB257", summary=summary, hint=hint)]) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problem = Diagnostic(code="LAB098", summary=f"template `{path}` cannot be read: {reason}")
        raise LabctlError([problem]) from error
