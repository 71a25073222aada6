"""`fgadahat-hooks schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output if left out.", dir_okay=False)
    ] = None,
) -> None:
    """Print the JSON schema of a spec, for editors and other tools.

    **Examples**

    - `fgadahat-hooks schema -o fgadahat-hooks.schema.json`

    A YAML spec whose first line is `# yaml-language-server: $schema=fgadahat-hooks.schema.json` is then completed and
    checked in editors.
    """
    from fgadahat_hooks.spec.files import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
