"""Rules of the operations that only move elements: the same operation, run on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.graph.tracing.call import Call, is_zero, rule
from fgadahat_hooks.graph.tracing.geometry import compact
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO


def _replay(call: Call, args: Sequence[Any]) -> Tensor:
    """Run the operation itself on label tensors; through float64, exact for labels, if it has no integer kernel."""
    function = getattr(torch.ops.aten, call.op.name)
    try:
        return compact(_first(function(*args)))
    except (RuntimeError, NotImplementedError):
        floats = pytree.tree_map_only(Tensor, lambda t: t.double() if t.dtype == torch.int32 else t, list(args))
        return compact(_first(function(*floats)).to(torch.int32))


def _first(out: Any) -> Tensor:
    first: Tensor = out[0] if isinstance(out, list | tuple) else out
    return first


@rule(
    "repeat pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col rot90 tril triu "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "diagonal_copy unfold_copy _reshape_copy view_copy expand_copy"
)
def _move(call: Call) -> Tensor:
    return _replay(call, [call.arg(0).contiguous(), *call.op.args[1:]])


@rule("roll flip")
def _turn(call: Call) -> Tensor:
    """Leave labels alone that are constant along the dimensions that turn."""
    labels, dims = call.arg(0), call.op.bound["dims"]
    if dims and all(labels.stride(d) == 0 or labels.shape[d] == 1 for d in dims):
        return labels
    return _replay(call, [labels.contiguous(), *call.op.args[1:]])


@rule("cat stack")
def _join_tensors(call: Call) -> Tensor:
    """Join the labels; those of `cat` only along the dimensions where they vary."""
    parts, rest = [call.labels(t) for t in call.op.args[0]], call.op.args[1:]
    if call.op.name == "stack" or any(p.dim() != parts[0].dim() for p in parts):
        return _replay(call, [parts, *rest])
    axis = call.op.bound["dim"] % parts[0].dim()
    for d in range(parts[0].dim()):
        if d != axis and all(p.stride(d) == 0 for p in parts):
            parts = [p.narrow(d, 0, 1) if p.shape[d] else p for p in parts]
    return _replay(call, [parts, *rest]).expand(call.shape)


@rule("constant_pad_nd")
def _pad(call: Call) -> Tensor:
    labels, pads = call.arg(0), list(call.op.args[1])
    for d in range(labels.dim() - len(pads) // 2):
        labels = labels.narrow(d, 0, 1) if labels.stride(d) == 0 else labels
    fill = ZERO if is_zero(call.op.bound["value"]) else LIVE
    return torch.constant_pad_nd(labels.contiguous(), pads, fill)


@rule("slice_scatter select_scatter")
def _scatter_view(call: Call) -> Tensor:
    return _replay(call, [call.arg(0).contiguous(), call.arg(1).contiguous(), *call.op.args[2:]])


# ------------------------------------------------------------------ picking by numbers held in tensors
@rule("index_select gather")
def _pick(call: Call) -> Tensor:
    bound = call.op.bound
    dims = [bound["dim"]] if isinstance(bound.get("dim"), int) else list(range(call.arg(0).dim()))
    return _picked(call, dims)


@rule("index")
def _index(call: Call) -> Tensor:
    dims: list[int] = []
    place = 0
    for picker in call.op.args[1]:
        width = picker.dim() if picker is not None and picker.dtype in (torch.bool, torch.uint8) else 1
        dims += range(place, place + width) if picker is not None else []
        place += width
    return _picked(call, dims)


def _picked(call: Call, dims: list[int]) -> Tensor:
    """Pick labels too; by numbers that the data decide, any place along the dimensions may be picked."""
    labels = call.arg(0)
    pickers = [t for t in call.op.inputs if t is not call.op.args[0]]
    if not all(call.constants.holds(t) for t in pickers):
        labels = call.table.over(labels, dims).expand(labels.shape)
    on_cpu = pytree.tree_map_only(Tensor, lambda t: t.cpu(), list(call.op.args[1:]))
    return _replay(call, [labels.contiguous(), *on_cpu])


@rule("index_add")
def _index_add(call: Call) -> Tensor:
    """Anything of the source may be added at any place along the dimension."""
    added = call.table.over(call.arg(3), [call.op.args[1]])
    return call.table.either(call.arg(0), added)
