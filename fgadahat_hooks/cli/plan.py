"""`fgadahat-hooks plan`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from fgadahat_hooks.cli.output import stdout, write_plain
from fgadahat_hooks.errors import TraceError


def plan(
    spec: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="A .yaml, .yml or .json file, preset:NAME or preset:NAME,TASKS."),
    ] = "preset:hat",
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODULE:NAME", help="Class, function or model: MODULE:NAME or FILE.py:NAME."
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            metavar="[NAME=]SHAPE",
            help="Shape of one sample, without the batch; once for each input of the forward.",
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Option("--arg", "-a", metavar="NAME=VALUE", help="Keyword argument of the model.")
    ] = None,
    model_args: Annotated[
        str | None, typer.Option("--model-args", metavar="JSON", help="Keyword arguments of the model, as an object.")
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="float, double, half, bfloat16, long, int or bool: once for all inputs, or for each. Floats are "
            "random, the others all ones. [default: float]"
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Number of samples.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a spec does to a model: gated layers, how every other tensor is protected, what can leak.

    The model is built by calling what --model names; nothing is downloaded: weights and pretrained are switched off
    unless you pass them. One forward is traced on made-up inputs, on the CPU.

    **Examples**

    - `fgadahat-hooks plan spec.yaml --model torchvision.models:resnet18 --input 3,224,224`

    - `fgadahat-hooks plan preset:fg_adahat -m nets.py:Net -a width=64 -i 784`

    - `fgadahat-hooks plan spec.yaml -m encoder.py:make -i input_ids=128 -i attention_mask=128 --dtype long --json`
    """
    from fgadahat_hooks.cli.spec_source import read_spec

    attach_spec = read_spec(spec)  # before the model, which may take long to import

    from fgadahat_hooks.cli.inputs import make_inputs
    from fgadahat_hooks.cli.models import make_model, read_arguments
    from fgadahat_hooks.cli.plan_tables import print_plan
    from fgadahat_hooks.protection.planning import plan as make_plan

    keywords = read_arguments(arguments or (), model_args)
    tensors = make_inputs(inputs, dtype or (), batch)
    try:
        result = make_plan(make_model(model, keywords), attach_spec, tensors)
    except TraceError as error:
        raise TraceError(f"{error} On the command line they come from --input, --dtype and --batch.") from error
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=2))
    elif stdout().is_terminal:
        print_plan(result)
    else:
        write_plain(str(result))
