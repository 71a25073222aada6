"""`fgadahat-hooks inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that session.save wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a saved run: its tasks, the room that is left, which units each task uses. The model is not needed.

    **Examples**

    - `fgadahat-hooks inspect run/`

    - `fgadahat-hooks inspect run/ --json`
    """
    from fgadahat_hooks.cli.run_data import run_data
    from fgadahat_hooks.cli.run_tables import print_run
    from fgadahat_hooks.summary.summary import read_summary

    summary = read_summary(run)
    if as_json:
        typer.echo(json.dumps(run_data(summary), indent=2))
    else:
        print_run(summary)
