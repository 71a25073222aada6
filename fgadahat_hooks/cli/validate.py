"""`fgadahat-hooks validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgadahat_hooks.cli.errors import WRONG, report_error
from fgadahat_hooks.cli.output import stdout
from fgadahat_hooks.errors import SpecError


def validate(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Specs: .yaml, .yml or .json files.")],
) -> None:
    """Check specs; tell all problems of all files.

    **Examples**

    - `fgadahat-hooks validate spec.yaml`

    - `fgadahat-hooks validate specs/*.yaml`
    """
    from fgadahat_hooks.spec.files import load_spec

    invalid = 0
    for path in specs:
        try:
            load_spec(path)
        except SpecError as error:
            report_error(error)
            invalid += 1
        else:
            stdout().print(f"ok  {path}", soft_wrap=True)
    if invalid:
        raise typer.Exit(WRONG)
