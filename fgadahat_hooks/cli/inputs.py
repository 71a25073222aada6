"""Example inputs from the shapes, names and dtypes given on the command line."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.registry import suggest

DTYPES = {
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "long": torch.int64,
    "int": torch.int32,
    "bool": torch.bool,
}


def make_inputs(shapes: Sequence[str], dtypes: Sequence[str], batch: int) -> tuple[Tensor, ...] | dict[str, Tensor]:
    """Make one tensor a shape, `(batch, *shape)`: normal noise, or ones for integer and bool dtypes.

    Args:
        shapes: `3,224,224`, or `name=3,224,224` for a keyword argument of the forward.
        dtypes: Empty for float, one for all inputs, or one for each.
        batch: Number of samples.

    Raises:
        BadCallError: A shape, a name or a dtype is not valid.
    """
    if len(dtypes) not in (0, 1, len(shapes)):
        raise BadCallError(
            f"Expected --dtype once, or once for each of {len(shapes)} inputs, but got it {len(dtypes)} times."
        )
    kinds = [dtypes[0] if len(dtypes) == 1 else dtypes[i] if dtypes else "float" for i in range(len(shapes))]
    generator = torch.Generator().manual_seed(0)
    named = [_split_name(text) for text in shapes]
    tensors = [_make_tensor(_parse_shape(s, batch), kind, generator) for (_, s), kind in zip(named, kinds, strict=True)]
    names = [name for name, _ in named]
    if not any(names):
        return tuple(tensors)
    if not all(names) or len(set(names)) < len(names):
        raise BadCallError(
            f"Expected every --input with a name of its own, or none with a name, but got {', '.join(shapes)}."
        )
    return dict(zip(names, tensors, strict=True))


def _split_name(text: str) -> tuple[str, str]:
    name, equals, shape = text.partition("=")
    return (name.strip(), shape) if equals else ("", text)


def _parse_shape(text: str, batch: int) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise BadCallError(
            f"Expected the shape of one sample as --input, whole numbers with commas between, but got {text!r}. Write "
            "--input 3,224,224; the batch is added in front."
        )
    return (batch, *map(int, parts))


def _make_tensor(sizes: tuple[int, ...], kind: str, generator: torch.Generator) -> Tensor:
    if kind not in DTYPES:
        raise BadCallError(f"Expected --dtype among {', '.join(DTYPES)}, but got {kind!r}.{suggest(kind, DTYPES)}")
    dtype = DTYPES[kind]
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    return torch.ones(sizes, dtype=dtype)
