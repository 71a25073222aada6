"""The command line, called in this process."""

from __future__ import annotations

from typing import NamedTuple

from typer.testing import CliRunner

from fgadahat_hooks.cli.app import app


class Said(NamedTuple):
    """What a command said, and the status it ended with."""

    status: int
    out: str
    err: str


def call(*arguments: object) -> Said:
    """Run a command; an exception that it should have told is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return Said(result.exit_code, result.stdout, result.stderr)
