"""Propagation rules of operations that move elements: views, permutations, slices, concatenation, padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from fgadahat_hooks.export.channel_axes import ChannelAxis
from fgadahat_hooks.export.channel_groups import untracked
from fgadahat_hooks.export.propagation_step import NotPropagatedError, PropagationStep, rule


@rule("view _unsafe_view reshape _reshape_alias unflatten flatten view_copy")
def _reshape(step: PropagationStep) -> None:
    source, old, new = step.single_input(), step.op.args[0].shape, step.out.shape
    for before, after in _equal_blocks(old, new):
        if source.axis in before:
            sizes = [old[d] for d in before], [new[d] for d in after]
            axis, channels = _reshape_block(source.channels, before.index(source.axis), *sizes)
            step.record(step.out, after[axis], channels)
            return
    raise NotPropagatedError("view")


def _equal_blocks(old: torch.Size, new: torch.Size) -> list[tuple[list[int], list[int]]]:
    """Pair up the shortest runs of axes of two shapes that hold the same number of elements."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        a, b = [i], [j]
        while (x := prod(old[d] for d in a)) != (y := prod(new[d] for d in b)):
            grow, end = (a, len(old)) if x < y else (b, len(new))
            if grow[-1] + 1 >= end:
                return blocks
            grow.append(grow[-1] + 1)
        i, j = a[-1] + 1, b[-1] + 1
        blocks.append((a, b))
    return blocks


def _reshape_block(channels: Tensor, axis: int, old: list[int], new: list[int]) -> tuple[int, Tensor]:
    """Reshape one block of axes; return the axis along which channels differ, and the channels along it."""
    shape = [1] * len(old)
    shape[axis] = len(channels)
    grid = channels.view(shape).expand(old).reshape(new)
    varying = [d for d, n in enumerate(new) if n > 1 and bool((grid != grid.narrow(d, 0, 1)).any())]
    if len(varying) != 1:
        raise NotPropagatedError("view (splits the units)")
    first = tuple(slice(None) if d == varying[0] else 0 for d in range(len(new)))
    return varying[0], grid[first].clone()


@rule("permute transpose t numpy_T")
def _permute(step: PropagationStep) -> None:
    source, x = step.single_input(), step.op.args[0]
    order = list(range(x.dim()))
    if step.op.name == "permute":
        order = [d % x.dim() for d in step.op.args[1]]
    elif step.op.name == "transpose":
        a, b = (d % x.dim() for d in step.op.args[1:3])
        order[a], order[b] = order[b], order[a]
    else:
        order.reverse()
    step.record(step.out, order.index(source.axis), source.channels)


@rule("unsqueeze squeeze")
def _squeeze(step: PropagationStep) -> None:
    source, x = step.single_input(), step.op.args[0]
    if step.op.name == "unsqueeze":
        inserted = step.op.args[1] % (x.dim() + 1)
        step.record(step.out, source.axis + (inserted <= source.axis), source.channels)
        return
    dims = step.op.args[1] if len(step.op.args) > 1 else range(x.dim())
    dims = [dims] if isinstance(dims, int) else dims
    removed = sum(x.shape[d] == 1 and d % x.dim() < source.axis for d in dims)
    step.record(step.out, source.axis - removed, source.channels)


@rule("expand")
def _expand(step: PropagationStep) -> None:
    source, x = step.single_input(), step.op.args[0]
    step.record(step.out, source.axis + step.out.dim() - x.dim(), source.channels)


@rule("slice narrow select")
def _slice(step: PropagationStep) -> None:
    source, x, bound = step.single_input(), step.op.args[0], step.op.bound
    dim = bound["dim"] % x.dim()
    if step.op.name == "select":
        if dim == source.axis:
            raise NotPropagatedError("select")
        step.record(step.out, source.axis - (dim < source.axis), source.channels)
        return
    positions = torch.arange(x.shape[dim], device="cpu")
    kept = getattr(torch.ops.aten, step.op.name)(positions, 0, *step.op.args[2:])
    step.record(step.out, source.axis, source.channels[kept] if dim == source.axis else source.channels)


@rule("split split_with_sizes chunk unbind")
def _split(step: PropagationStep) -> None:
    source, x = step.single_input(), step.op.args[0]
    dim = step.op.bound["dim"] % x.dim()
    if step.op.name == "unbind":
        if dim == source.axis:
            raise NotPropagatedError("unbind")
        for out in step.outs:
            step.record(out, source.axis - (dim < source.axis), source.channels)
        return
    first = 0
    for out in step.outs:
        last = first + out.shape[dim]
        step.record(out, source.axis, source.channels[first:last] if dim == source.axis else source.channels)
        first = last


@rule("cat")
def _cat(step: PropagationStep) -> None:
    parts = step.op.args[0]
    sources = [step.channel_axis(t) for t in parts]
    tracked = [source for source in sources if source is not None]
    dim = step.op.bound["dim"] % step.out.dim()
    if len({source.axis for source in tracked}) != 1:
        raise NotPropagatedError("cat")
    axis, channels = tracked[0].axis, tracked[0].channels
    rows = list(_channels_of_parts(parts, sources, axis, step.out.dim()))
    if axis == dim:
        channels = torch.cat(rows)
    else:
        for other in rows[1:]:
            step.groups.join(rows[0], other, "joined with what no layer makes")
    step.record(step.out, axis, channels)


def _channels_of_parts(
    parts: Sequence[Tensor], sources: Sequence[ChannelAxis | None], axis: int, dims: int
) -> Iterator[Tensor]:
    """Yield the channels along an axis of each part; an empty part of another rank, which `cat` skips, has none."""
    for t, source in zip(parts, sources, strict=True):
        if t.dim() == dims:
            yield untracked(t.shape[axis]) if source is None else source.channels


@rule("roll flip")
def _roll(step: PropagationStep) -> None:
    source, x = step.single_input(), step.op.args[0]
    dims = [d % x.dim() for d in step.op.bound["dims"]]
    if source.axis in dims or not dims:
        raise NotPropagatedError(step.op.name)
    step.record(step.out, source.axis, source.channels)


@rule(
    "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d"
)
def _pad(step: PropagationStep) -> None:
    source, x, pads = step.single_input(), step.op.args[0], list(step.op.args[1])
    from_last = x.dim() - 1 - source.axis
    if any(pads[2 * from_last : 2 * from_last + 2]):
        raise NotPropagatedError("padding of units")
    step.record(step.out, source.axis, source.channels)
