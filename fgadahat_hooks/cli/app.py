"""The Typer application with all commands. Each command has its file and imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from fgadahat_hooks.cli.audit import audit
from fgadahat_hooks.cli.convert import convert
from fgadahat_hooks.cli.errors import ErrorReportingGroup
from fgadahat_hooks.cli.inspect import inspect
from fgadahat_hooks.cli.plan import plan
from fgadahat_hooks.cli.report import report
from fgadahat_hooks.cli.schema import schema
from fgadahat_hooks.cli.validate import validate

app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        import fgadahat_hooks

        typer.echo(f"fgadahat-hooks {fgadahat_hooks.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not its message alone.")
    ] = False,
) -> None:
    """Hard-attention-to-the-task gates for your own model: check specs, look at plans and at saved runs.

    Exit status: 0 all is well, 2 the call or the spec is wrong, 1 anything else.
    """


for command in (schema, validate, plan, inspect, report, audit, convert):
    app.command()(command)
