"""Errors on the command line: the message on standard error, a status, no traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from fgadahat_hooks.cli.consoles import err
from fgadahat_hooks.errors import BadCallError, FgadahatError, MatchError, SpecError, UnknownNameError

FAILED, WRONG = 1, 2
"""Exit statuses: something failed; the call or the spec is wrong."""

_WRONG_INPUT = (BadCallError, MatchError, SpecError, UnknownNameError)


class ToldGroup(TyperGroup):
    """Commands whose errors are told in a few words."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what this library raises on purpose, and what the system refuses, becomes a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader has seen enough, as `head` has
            raise
        except FgadahatError as error:
            if ctx.params.get("debug"):
                raise
            tell(error)
            raise typer.Exit(WRONG if isinstance(error, _WRONG_INPUT) else FAILED) from None
        except OSError as error:
            if ctx.params.get("debug") or error.filename is None:
                raise
            tell(error)
            raise typer.Exit(FAILED) from None


def tell(error: Exception) -> None:
    """Write the message of an error to standard error."""
    console = err()
    console.print("Error: ", style="bold red", end="")
    console.print(_refused(error) if isinstance(error, OSError) else str(error), soft_wrap=True)


def _refused(error: OSError) -> str:
    return f"Expected to read or write {error.filename!r}, but the system refused: {error.strerror}."
