"""What operations that only move elements do to labels: the same operation, run on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO
from fgadahat_hooks.graph.tracing.rule_registry import RuleContext, is_zero, rule
from fgadahat_hooks.graph.tracing.storage import expand_constant


def _replay(ctx: RuleContext, args: Sequence[Any]) -> Tensor:
    """Run the operation itself on label tensors; in float64, exact for labels, if it has no integer kernel."""
    function = getattr(torch.ops.aten, ctx.op.name)
    try:
        return expand_constant(_first(function(*args)))
    except (RuntimeError, NotImplementedError):
        floats = pytree.tree_map_only(Tensor, lambda t: t.double() if t.dtype == torch.int32 else t, list(args))
        return expand_constant(_first(function(*floats)).to(torch.int32))


def _first(out: Any) -> Tensor:
    first: Tensor = out[0] if isinstance(out, list | tuple) else out
    return first


@rule(
    "repeat pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col rot90 tril triu "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "diagonal_copy unfold_copy _reshape_copy view_copy expand_copy"
)
def _move(ctx: RuleContext) -> Tensor:
    return _replay(ctx, [ctx.arg(0).contiguous(), *ctx.op.args[1:]])


@rule("roll flip")
def _roll_or_flip(ctx: RuleContext) -> Tensor:
    """Keep labels that are constant along the rolled or flipped dimensions; move others."""
    labels, dims = ctx.arg(0), ctx.op.bound["dims"]
    if dims and all(labels.stride(d) == 0 or labels.shape[d] == 1 for d in dims):
        return labels
    return _replay(ctx, [labels.contiguous(), *ctx.op.args[1:]])


@rule("cat stack")
def _concatenate(ctx: RuleContext) -> Tensor:
    """Concatenate the labels; those of `cat` only over the dimensions where they vary."""
    parts, rest = [ctx.labels(t) for t in ctx.op.args[0]], ctx.op.args[1:]
    if ctx.op.name == "stack" or any(p.dim() != parts[0].dim() for p in parts):
        return _replay(ctx, [parts, *rest])
    axis = ctx.op.bound["dim"] % parts[0].dim()
    for d in range(parts[0].dim()):
        if d != axis and all(p.stride(d) == 0 for p in parts):
            parts = [p.narrow(d, 0, 1) if p.shape[d] else p for p in parts]
    return _replay(ctx, [parts, *rest]).expand(ctx.shape)


@rule("constant_pad_nd")
def _pad(ctx: RuleContext) -> Tensor:
    labels, pads = ctx.arg(0), list(ctx.op.args[1])
    for d in range(labels.dim() - len(pads) // 2):
        labels = labels.narrow(d, 0, 1) if labels.stride(d) == 0 else labels
    fill = ZERO if is_zero(ctx.op.bound["value"]) else LIVE
    return torch.constant_pad_nd(labels.contiguous(), pads, fill)


@rule("slice_scatter select_scatter")
def _scatter_view(ctx: RuleContext) -> Tensor:
    return _replay(ctx, [ctx.arg(0).contiguous(), ctx.arg(1).contiguous(), *ctx.op.args[2:]])


# ------------------------------------------------------------------ indexing by tensors
@rule("index_select gather")
def _select(ctx: RuleContext) -> Tensor:
    bound = ctx.op.bound
    dims = [bound["dim"]] if isinstance(bound.get("dim"), int) else list(range(ctx.arg(0).dim()))
    return _index_labels(ctx, dims)


@rule("index")
def _index(ctx: RuleContext) -> Tensor:
    """Index by one tensor a dimension, None for a dimension that stays; a mask covers several dimensions."""
    dims: list[int] = []
    first = 0
    for index in ctx.op.args[1]:
        width = index.dim() if index is not None and index.dtype in (torch.bool, torch.uint8) else 1
        dims += range(first, first + width) if index is not None else []
        first += width
    return _index_labels(ctx, dims)


def _index_labels(ctx: RuleContext, dims: list[int]) -> Tensor:
    """Index the labels too; if the index depends on data, every position along `dims` gets the join over them."""
    labels = ctx.arg(0)
    indices = [t for t in ctx.op.inputs if t is not ctx.op.args[0]]
    if not all(t in ctx.constants for t in indices):
        labels = ctx.table.join_over(labels, dims).expand(labels.shape)
    on_cpu = pytree.tree_map_only(Tensor, lambda t: t.cpu(), list(ctx.op.args[1:]))
    return _replay(ctx, [labels.contiguous(), *on_cpu])


@rule("index_add")
def _index_add(ctx: RuleContext) -> Tensor:
    """Join with the source, any part of which may be added at any position along the dimension."""
    added = ctx.table.join_over(ctx.arg(3), [ctx.op.args[1]])
    return ctx.table.join_tensors(ctx.arg(0), added)
