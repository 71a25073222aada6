"""Run the command line in this process."""

from __future__ import annotations

from typing import NamedTuple

from typer.testing import CliRunner

from fgadahat_hooks.cli.app import app


class CommandResult(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


def call(*arguments: object) -> CommandResult:
    """Run a command; exceptions that it does not report are raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return CommandResult(result.exit_code, result.stdout, result.stderr)
