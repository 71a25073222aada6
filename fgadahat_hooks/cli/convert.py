"""`fgadahat-hooks convert`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgadahat_hooks.cli.output import stderr

if TYPE_CHECKING:
    from fgadahat_hooks.cli.clarena import Converted

_COLUMNS = 118


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CLArena configuration: .yaml, .yml or .json.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Spec to write, .yaml, .yml or .json; standard output if left out.", dir_okay=False
        ),
    ] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help="Leave unknown arguments out, and say so.")] = False,
    schema: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Let editors check the spec by this schema, relative to the spec's folder."),
    ] = None,
) -> None:
    """Make a spec of CLArena's hyper-parameters for HAT, AdaHAT or FGAdaHAT.

    FILE holds the class as `_target_` (Hydra) or `class_path` with `init_args` (LightningCLI), anywhere in it, or the
    arguments alone. The first lines of the spec, comments, say what was left out and what differs on purpose.

    **Examples**

    - `fgadahat-hooks convert experiment.yaml -o spec.yaml`

    - `fgadahat-hooks convert cl_algorithm.yaml --schema fgadahat-hooks.schema.json`
    """
    from fgadahat_hooks.cli.clarena import convert_clarena
    from fgadahat_hooks.spec.attach_spec import to_spec
    from fgadahat_hooks.spec.files import dump_spec, read_mapping, yaml_text

    converted = convert_clarena(read_mapping(file), str(file), lenient=lenient)
    text = _header(converted, file.name, schema) + "\n" + yaml_text(converted.spec)
    if output is None:
        typer.echo(text, nl=False)
        return
    dump_spec(to_spec(converted.spec), output)  # raises if the name or the folder is wrong
    if output.suffix.lower() != ".json":
        output.write_text(text, encoding="utf-8")
    stderr().print(f"Wrote {output}, from the arguments of {converted.algorithm}.", soft_wrap=True)
    for note in converted.notes:
        stderr().print(f"  - {note}", soft_wrap=True)


def _header(converted: Converted, name: str, schema: str | None) -> str:
    from fgadahat_hooks.cli.clarena_table import DIFFERENCES

    lines = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines.append(f"# The arguments of CLArena's {converted.algorithm} in {name}, as a spec of fgadahat_hooks.")
    lines += _section("Notes", converted.notes)
    lines += _section("Different on purpose", [text for names, text in DIFFERENCES if converted.algorithm in names])
    return "\n".join(lines)


def _section(title: str, items: list[str]) -> list[str]:
    lines = ["#", f"# {title}:"] if items else []
    for item in items:
        lines += textwrap.wrap(item, _COLUMNS, initial_indent="# - ", subsequent_indent="#   ")
    return lines
