"""Sending the agent to a host: one shell command that starts Python there, and what that Python then reads.

The command holds no code of the agent and nothing secret. It works in any login shell. What it cannot do it says in
words of its own (``labctl-error …``), because shells and sudo word the same thing differently.
"""

from __future__ import annotations

import functools
import marshal
import zlib
from enum import StrEnum
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER, find_spec
from pathlib import Path
from types import CodeType
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

HOT: Final = frozenset(
    {"labctl", "agent", "call", "facts", "files", "frames", "operations", "processes", "programs", "serve", "web"}
)
_STAGE: Final = (
    "import sys;o=sys.stdout;o.write(chr(10)+'labctl-ready'+chr(10));o.flush();"
    "b=sys.stdin.buffer;exec(b.read(int(b.readline())))"
)
_LOADER: Final = """\
import sys
if sys.version_info < ({major}, {minor}):
    sys.stderr.write("{trouble} old-python %d.%d\\n" % sys.version_info[:2])
    sys.exit(1)
import marshal, zlib
import _frozen_importlib_external as own
compiled, packed = sys.stdin.buffer.read({compiled}), sys.stdin.buffer.read({packed})
CODES = marshal.loads(zlib.decompress(compiled)) if own.MAGIC_NUMBER.hex() == "{magic}" else {{}}
class Loader:
    names = {names!r}
    sources = None
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in Loader.names:
            return type(__spec__ or sys.__spec__)(name, Loader, is_package=name in ("labctl", "labctl.agent"))
    @staticmethod
    def create_module(spec):
        return None
    @staticmethod
    def exec_module(module):
        name = module.__spec__.name
        if name not in CODES:
            if Loader.sources is None:
                Loader.sources = marshal.loads(zlib.decompress(packed))
            CODES[name] = compile(Loader.sources[name], "<" + name + ">", "exec")
        exec(CODES[name], module.__dict__)
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
    sources = {"labctl": "", **sources, "labctl.agent": sources.pop("labctl.agent.__init__")}
    codes = {name: _code(name, sources[name]) for name in sources if name.rpartition(".")[2] in HOT}
    compiled, packed = zlib.compress(marshal.dumps(codes), 6), zlib.compress(marshal.dumps(sources, 2), 6)
    loader = _LOADER.format(
        major=OLDEST[0],
        minor=OLDEST[1],
        trouble=TROUBLE,
        compiled=len(compiled),
        packed=len(packed),
        magic=MAGIC_NUMBER.hex(),
        names=tuple(sources),
    ).encode()
    return str(len(loader)).encode() + b"\n" + loader + compiled + packed


def _code(name: str, source: str) -> CodeType:
    """Return a module compiled for this Python: a host that has the same need not do it, nor this machine again."""
    spec = find_spec(name)
    loader = spec.loader if spec is not None else None
    code = loader.get_code(name) if name != "labctl" and isinstance(loader, SourceFileLoader) else None
    return code or compile(source, f"<{name}>", "exec", dont_inherit=True)
