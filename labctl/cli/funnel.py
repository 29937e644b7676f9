"""The one way out: whatever a command does or raises becomes output and an exit code here."""

from __future__ import annotations

import os
import sys

from labctl.cli.help import top_level_help, wants_help

_INTERRUPTED = 130


def run(argv: list[str]) -> int:
    """Run labctl with these arguments and return its exit code; no exception leaves this function."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        return _hang_up()
    except Exception as error:
        return _report(error, argv)
    return code


def _dispatch(argv: list[str]) -> int:
    if wants_help(argv):
        sys.stdout.write(top_level_help())
        return 0
    from labctl.cli.app import make_app

    try:
        make_app()(args=argv, prog_name="labctl")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _hang_up() -> int:
    """Keep Python from complaining at exit that it cannot flush, and exit as a killed writer would."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13


def _report(error: Exception, argv: list[str]) -> int:
    from labctl.cli.app import StoppedError
    from labctl.cli.report import show_diagnostics
    from labctl.diagnostics import LabctlError

    if isinstance(error, StoppedError):
        return error.exit_code if error.exit_code == _INTERRUPTED else _hang_up()
    if isinstance(error, LabctlError):
        show_diagnostics(error.diagnostics, json="--json" in _options(argv))
        return error.exit_code
    hosts = sys.modules.get("labctl.hosts.base")
    if hosts is not None and isinstance(error, hosts.HostError):
        show_diagnostics([error.diagnostic], json="--json" in _options(argv))
        return 1
    return _internal(error, argv)


def _internal(error: Exception, argv: list[str]) -> int:
    verbose = os.environ.get("LABCTL_TRACEBACK") == "1" or bool({"-v", "--verbose"} & set(_options(argv)))
    if verbose:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    words = "" if verbose else "; run it again with LABCTL_TRACEBACK=1 to see where"
    sys.stderr.write(
        f"error: this is a bug in labctl: {type(error).__name__}: {error}{words}\n"
        "hint: please report it to labctl's maintainers with the command and, if you can, the lab\n"
    )
    return 1


def _options(argv: list[str]) -> list[str]:
    return argv[: argv.index("--")] if "--" in argv else argv
