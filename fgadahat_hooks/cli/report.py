"""`fgadahat-hooks report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fgadahat_hooks.cli.accuracy import read_accuracy
from fgadahat_hooks.cli.output import stdout


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that session.save wrote.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; one that is there is replaced.", dir_okay=False)
    ] = Path("report.html"),
    accuracy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Accuracy matrix, .json or .csv: row i has the accuracy on each task after learning task i. Left out, "
            "it is what the loop saved.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a saved run as one HTML file that needs no network.

    **Examples**

    - `fgadahat-hooks report run/ -o report.html`

    - `fgadahat-hooks report run/ --accuracy accuracy.csv --open`
    """
    from fgadahat_hooks.report import report as write_report

    rows = None if accuracy is None else read_accuracy(accuracy)
    written = write_report(run, output, accuracy=rows)
    stdout().print(f"Wrote {written}", soft_wrap=True)
    if show:
        webbrowser.open(Path(written).resolve().as_uri())
