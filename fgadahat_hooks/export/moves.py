"""Rules of operations that move elements: the line goes with its axis."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.export.slots import FIXED
from fgadahat_hooks.export.step import NotFollowedError, Step, rule
from fgadahat_hooks.graph.tracing.geometry import product


@rule("view _unsafe_view reshape _reshape_alias unflatten flatten view_copy")
def _reshape(step: Step) -> None:
    line, old, new = step.only(), step.op.args[0].shape, step.out.shape
    for before, after in _blocks(old, new):
        if line.axis in before:
            sizes = [old[d] for d in before], [new[d] for d in after]
            axis, slots = _within(line.slots, before.index(line.axis), *sizes)
            step.put(step.out, after[axis], slots)
            return
    raise NotFollowedError("view")


def _blocks(old: torch.Size, new: torch.Size) -> list[tuple[list[int], list[int]]]:
    """Pair up the shortest runs of axes of two shapes that hold the same number of elements."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        a, b = [i], [j]
        while (x := product(old[d] for d in a)) != (y := product(new[d] for d in b)):
            grow, end = (a, len(old)) if x < y else (b, len(new))
            if grow[-1] + 1 >= end:
                return blocks
            grow.append(grow[-1] + 1)
        i, j = a[-1] + 1, b[-1] + 1
        blocks.append((a, b))
    return blocks


def _within(slots: Tensor, axis: int, old: list[int], new: list[int]) -> tuple[int, Tensor]:
    """Reshape one block of axes; return the axis along which slots differ, and the slots along it."""
    shape = [1] * len(old)
    shape[axis] = len(slots)
    grid = slots.view(shape).expand(old).reshape(new)
    varying = [d for d, n in enumerate(new) if n > 1 and bool((grid != grid.narrow(d, 0, 1)).any())]
    if len(varying) != 1:
        raise NotFollowedError("view (splits the units)")
    first = tuple(slice(None) if d == varying[0] else 0 for d in range(len(new)))
    return varying[0], grid[first].clone()


@rule("permute transpose t numpy_T")
def _permute(step: Step) -> None:
    line, x = step.only(), step.op.args[0]
    numbers = list(range(x.dim()))
    if step.op.name == "permute":
        numbers = [d % x.dim() for d in step.op.args[1]]
    elif step.op.name == "transpose":
        a, b = (d % x.dim() for d in step.op.args[1:3])
        numbers[a], numbers[b] = numbers[b], numbers[a]
    else:
        numbers.reverse()
    step.put(step.out, numbers.index(line.axis), line.slots)


@rule("unsqueeze squeeze")
def _squeeze(step: Step) -> None:
    line, x = step.only(), step.op.args[0]
    if step.op.name == "unsqueeze":
        place = step.op.args[1] % (x.dim() + 1)
        step.put(step.out, line.axis + (place <= line.axis), line.slots)
        return
    dims = step.op.args[1] if len(step.op.args) > 1 else range(x.dim())
    dims = [dims] if isinstance(dims, int) else dims
    gone = sum(x.shape[d] == 1 and d % x.dim() < line.axis for d in dims)
    step.put(step.out, line.axis - gone, line.slots)


@rule("expand")
def _expand(step: Step) -> None:
    line, x = step.only(), step.op.args[0]
    step.put(step.out, line.axis + step.out.dim() - x.dim(), line.slots)


@rule("slice narrow select")
def _cut(step: Step) -> None:
    line, x, bound = step.only(), step.op.args[0], step.op.bound
    dim = bound["dim"] % x.dim()
    if step.op.name == "select":
        if dim == line.axis:
            raise NotFollowedError("select")
        step.put(step.out, line.axis - (dim < line.axis), line.slots)
        return
    places = torch.arange(x.shape[dim], device="cpu")
    kept = getattr(torch.ops.aten, step.op.name)(places, 0, *step.op.args[2:])
    step.put(step.out, line.axis, line.slots[kept] if dim == line.axis else line.slots)


@rule("split split_with_sizes chunk unbind")
def _split(step: Step) -> None:
    line, x = step.only(), step.op.args[0]
    dim = step.op.bound["dim"] % x.dim()
    if step.op.name == "unbind":
        if dim == line.axis:
            raise NotFollowedError("unbind")
        for out in step.outs:
            step.put(out, line.axis - (dim < line.axis), line.slots)
        return
    first = 0
    for out in step.outs:
        last = first + out.shape[dim]
        step.put(out, line.axis, line.slots[first:last] if dim == line.axis else line.slots)
        first = last


@rule("cat")
def _cat(step: Step) -> None:
    parts = step.op.args[0]
    lines = [step.line(t) for t in parts]
    axes = {line.axis for line in lines if line is not None}
    dim = step.op.bound["dim"] % step.out.dim()
    if len(axes) != 1:
        raise NotFollowedError("cat")
    axis = axes.pop()
    rows = [
        torch.full((t.shape[axis],), FIXED, device="cpu") if line is None else line.slots
        for t, line in zip(parts, lines, strict=True)
        if t.dim() == step.out.dim()
    ]
    if axis == dim:
        step.put(step.out, axis, torch.cat(rows))
        return
    for other in rows[1:]:
        step.slots.join(rows[0], other, "joined with what no layer makes")
    step.put(step.out, axis, next(line.slots for line in lines if line is not None))


@rule("roll flip")
def _turn(step: Step) -> None:
    line, x = step.only(), step.op.args[0]
    dims = [d % x.dim() for d in step.op.bound["dims"]]
    if line.axis in dims or not dims:
        raise NotFollowedError(step.op.name)
    step.put(step.out, line.axis, line.slots)


@rule(
    "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d"
)
def _pad(step: Step) -> None:
    line, x, pads = step.only(), step.op.args[0], list(step.op.args[1])
    back = x.dim() - 1 - line.axis
    if any(pads[2 * back : 2 * back + 2]):
        raise NotFollowedError("padding of units")
    step.put(step.out, line.axis, line.slots)
