"""How errors end a command: message on standard error, exit status, no traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from fgadahat_hooks.cli.output import stderr
from fgadahat_hooks.errors import BadCallError, FgadahatError, MatchError, SpecError, UnknownNameError

FAILED, WRONG = 1, 2
"""Exit statuses: a failure, and a wrong call or spec."""

_WRONG_INPUT = (BadCallError, MatchError, SpecError, UnknownNameError)


class ErrorReportingGroup(TyperGroup):
    """A group of commands that reports errors by their message alone."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn errors of this library and refusals of the system into a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader closed the pipe, as `head` does
            raise
        except FgadahatError as error:
            if ctx.params.get("debug"):
                raise
            report_error(error)
            raise typer.Exit(WRONG if isinstance(error, _WRONG_INPUT) else FAILED) from None
        except OSError as error:
            if ctx.params.get("debug") or error.filename is None:
                raise
            report_error(error)
            raise typer.Exit(FAILED) from None


def report_error(error: Exception) -> None:
    """Write the message of an error to standard error."""
    console = stderr()
    console.print("Error: ", style="bold red", end="")
    console.print(_system_message(error) if isinstance(error, OSError) else str(error), soft_wrap=True)


def _system_message(error: OSError) -> str:
    return f"Expected to read or write {error.filename!r}, but the system refused: {error.strerror}."
