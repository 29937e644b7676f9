"""``python -m labctl.embedded.llama_server``: llama.cpp's HTTP server inside Python, with llama-server's command line.

Nothing is compiled: PyPI's ``xllamacpp`` holds the real server. Logs go to stderr. Exit status: 0 after SIGTERM or
SIGINT, 1 when the server cannot start, 2 for a command line that is not understood.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from labctl.embedded.llama_flags import FlagError, Member, read_flags

xllamacpp: Any = importlib.import_module("xllamacpp") if importlib.util.find_spec("xllamacpp") else None
"""An optional extra without type stubs; None when it is not installed."""

_STOP: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_DEFAULTS: Final = {"port": 8080, "verbosity": 3}
"""What llama-server sets outside its parameter struct."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; return the exit status."""
    try:
        settings, key_files = read_flags(sys.argv[1:] if arguments is None else arguments)
        keys = [*settings.get("api_keys", ()), *_read_keys(key_files)]
    except (FlagError, OSError) as error:
        return _fail(str(error), 2)
    if xllamacpp is None:
        return _fail("llama.cpp is not installed; run: pip install 'labctl[quickstart]'", 1)
    return _serve({**_DEFAULTS, **settings, **({"api_keys": keys} if keys else {})})


def _serve(settings: Mapping[str, Any]) -> int:
    # Blocked before the server starts its threads, so that they inherit it and only sigwait sees the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        server = xllamacpp.Server(_parameters(settings))
    except RuntimeError as error:
        os._exit(_fail(f"{settings['model.path']}: {error}", 1))  # its half-started threads may crash a tidy exit
    _say(f"ready on {server.listening_address}")
    signal.sigwait(_STOP)
    _say("stopped")
    # Not through the destructor: with a request in flight it holds the interpreter's lock for up to 30 s (seen in 2 of
    # 12 tries with b11549). llama-server's own stop cuts requests off too, and there is nothing to save.
    os._exit(0)


def _parameters(settings: Mapping[str, Any]) -> Any:
    parameters = xllamacpp.CommonParams()
    for path, value in settings.items():
        *parents, attribute = path.split(".")
        holder = parameters
        for parent in parents:
            holder = getattr(holder, parent)
        setattr(holder, attribute, _native(value))
    return parameters


def _native(value: object) -> object:
    return getattr(xllamacpp, value.enum)[value.name] if isinstance(value, Member) else value


def _read_keys(files: Iterable[str]) -> list[str]:
    lines = [line.strip() for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _say(text: str) -> None:
    sys.stderr.write(f"llama-server (xllamacpp): {text}\n")
    sys.stderr.flush()


def _fail(text: str, status: int) -> int:
    _say(f"error: {text}")
    return status


if __name__ == "__main__":
    sys.exit(main())
