"""The typer application: a group that imports a command's module when the command is used, not before."""

from __future__ import annotations

import difflib
import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from labctl.cli.commands import COMMANDS, SUMMARY
from labctl.diagnostics import ExitCode

CLOSED_PIPE = 128 + 13
"""Exit status after the reader of the output went away: that of a program that SIGPIPE ends."""


class StoppedError(Exception):
    """Somebody ended the command from outside: Ctrl-C, or the reader of its output went away."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(exit_code)


class LazyGroup(TyperGroup):
    """A group whose commands are looked up in ``COMMANDS``."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        """Import and return a command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return make_command(cmd_name, getattr(importlib.import_module(module), name))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        """List the table: nothing is imported, nothing cut short."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names; a usage error with the nearest name for none."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"there is no command `{name}`" + (f"; did you mean `{close[0]}`?" if close else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C and a closed pipe come out as StoppedError, whatever typer would make of them."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            raise StoppedError(CLOSED_PIPE) from None


def make_command(name: str, function: Any) -> Any:
    """Return typer's command for a function."""
    single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
    single.command(name)(function)
    command = typer.main.get_command(single)
    command.name = name
    return command


def make_app() -> Any:
    """Return the whole application as typer's command object."""
    return typer.main.get_command(_APP)


_SETTINGS = {"help_option_names": ["-h", "--help"]}
_APP = typer.Typer(
    cls=LazyGroup, help=SUMMARY, rich_markup_mode=None, context_settings=_SETTINGS, pretty_exceptions_enable=False
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"labctl {version('labctl')}")
        raise typer.Exit


@_APP.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an internal error.")] = False,
) -> None:
    pass
