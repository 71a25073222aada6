"""`fgadahat-hooks audit`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fgadahat_hooks.cli.output import write_plain


def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that session.save wrote.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODULE:NAME", help="Class, function or model: MODULE:NAME or FILE.py:NAME."
        ),
    ],
    *,
    arguments: Annotated[
        list[str] | None, typer.Option("--arg", "-a", metavar="NAME=VALUE", help="Keyword argument of the model.")
    ] = None,
    model_args: Annotated[
        str | None, typer.Option("--model-args", metavar="JSON", help="Keyword arguments of the model, as an object.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="Where to compute outputs: where session.certify did.")
    ] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the finished tasks of a saved run with what session.certify wrote down; fail at one changed bit.

    The model is built by calling what --model names, and gets the values in the folder. Exit status: 0 all bits are the
    same, 1 something has changed, cannot be read or was never certified, 2 the call is wrong.

    **Examples**

    - `fgadahat-hooks audit run/ --model nets.py:Net`

    - `fgadahat-hooks audit run/ -m nets.py:Net -a width=64 --device cuda --json`
    """
    from fgadahat_hooks.cli.models import make_model, move_model, read_arguments
    from fgadahat_hooks.session.load import load

    built = make_model(model, read_arguments(arguments or (), model_args))
    session = load(move_model(built, device), run)
    found = session.audit()
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        write_plain(str(found))
