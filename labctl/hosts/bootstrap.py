"""Sending the agent to a host: one shell command that starts Python there, and what that Python then reads.

The command holds no code of the agent and nothing secret. It works in any login shell. What it cannot do it says in
words of its own (``labctl-error …``), because shells and sudo word the same thing differently.
"""

from __future__ import annotations

import functools
import json
import zlib
from enum import StrEnum
from pathlib import Path
from typing import Final

import labctl.agent

OLDEST: Final = (3, 9)
"""The oldest Python that the agent runs on."""
PROMPT: Final = "labctl-sudo-password:"
"""What sudo is told to ask with."""
READY: Final = b"labctl-ready\n"
"""Printed by the started Python when it waits for the agent."""
TROUBLE: Final = "labctl-error"
"""Begins a line in which the command says what is missing."""

_STAGE: Final = (
    "import sys;o=sys.stdout;o.write(chr(10)+'labctl-ready'+chr(10));o.flush();"
    "b=sys.stdin.buffer;exec(b.read(int(b.readline())))"
)
_LOADER: Final = """\
import sys
if sys.version_info < ({major}, {minor}):
    sys.stderr.write("{trouble} old-python %d.%d\\n" % sys.version_info[:2])
    sys.exit(1)
import json, zlib
from importlib.machinery import ModuleSpec
SOURCES = json.loads(zlib.decompress(sys.stdin.buffer.read({size})).decode())
class Loader:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, Loader, is_package=name in ("labctl", "labctl.agent")) if name in SOURCES else None
    @staticmethod
    def create_module(spec):
        return None
    @staticmethod
    def exec_module(module):
        name = module.__spec__.name
        exec(compile(SOURCES[name], "<" + name + ">", "exec"), module.__dict__)
sys.meta_path.insert(0, Loader)
from labctl.agent.serve import main
main()
"""


class Sudo(StrEnum):
    """How to become root."""

    NEVER = "never"
    IF_NEEDED = "if needed"
    """With ``sudo -n``, unless the login is root."""
    PASSWORD = "password"  # noqa: S105 - a way, not a password
    """With a password, which is asked for on standard error and read from standard input."""


def command(sudo: Sudo) -> str:
    """Return the command for the host's login shell. It has no single quote inside its quotes."""
    stage = _STAGE.replace("'", '\\"')
    python = f'"$python" -IS -c "{stage}"'
    become = {
        Sudo.NEVER: f"exec {python}",
        Sudo.IF_NEEDED: f"{_HAS_SUDO}exec sudo -n -H -- {python}",
        Sudo.PASSWORD: f'{_HAS_SUDO}exec sudo -S -k -H -p "{PROMPT}" -- {python}',
    }[sudo]
    root = f'if [ "$(id -u)" = 0 ]; then exec {python}; fi; ' if sudo is not Sudo.NEVER else ""
    return f"exec sh -c '{_FIND_PYTHON}{root}{become}'"


_FIND_PYTHON: Final = (
    "for python in $(command -v python3) /usr/bin/python3 /usr/local/bin/python3 /run/current-system/sw/bin/python3; "
    'do [ -x "$python" ] && break; python=; done; '
    f'[ "$python" ] || {{ echo "{TROUBLE} no-python" >&2; exit 127; }}; '
)
_HAS_SUDO: Final = f'command -v sudo >/dev/null 2>&1 || {{ echo "{TROUBLE} no-sudo" >&2; exit 127; }}; '


@functools.cache
def payload() -> bytes:
    """Return what the started Python reads: a loader, and the agent's modules packed."""
    folder = Path(labctl.agent.__file__).parent
    sources = {f"labctl.agent.{p.stem}": p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.py"))}
    sources["labctl.agent"] = sources.pop("labctl.agent.__init__")
    packed = zlib.compress(json.dumps({"labctl": "", **sources}).encode(), 9)
    loader = _LOADER.format(major=OLDEST[0], minor=OLDEST[1], trouble=TROUBLE, size=len(packed)).encode()
    return str(len(loader)).encode() + b"\n" + loader + packed
