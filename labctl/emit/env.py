r"""Values → ``NAME="value"`` files that compose (``env_file``) and systemd (``EnvironmentFile=``) read alike.

Both take double quotes, undo ``\"``, ``\\`` and ``\$``, and keep every other character, line breaks too; beyond that
they differ (single quotes, other escapes, expansion of ``$NAME``), so nothing else is used. Sources: compose-go
``dotenv/parser.go``, systemd ``src/basic/env-file.c``. ``labctl.run_env`` reads the same form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from labctl.emit import HEADER, refuse

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED: Final = re.compile(r'["\\$]')
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""systemd drops a variable with any control character but tab and line break."""


def dump(entries: Mapping[str, str], *, header: str = HEADER) -> str:
    """Return the file's text, one variable per entry in declared order.

    Raises:
        EmitError: for a name that is not an identifier, and a value with control characters other than tab and
            line break. The message never shows the value.
    """
    lines = [f"# {header}", *(f'{_name(name)}="{_value(name, value)}"' for name, value in entries.items())]
    return "\n".join([*lines, ""])


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        refuse(f"the variable `{name}`", "its name is not made of letters, digits and underscores")
    return name


def _value(name: str, value: str) -> str:
    if _CONTROL.search(value):
        refuse(f"the value of `{name}`", "it has a control character")
    return _ESCAPED.sub(r"\\\g<0>", value)
