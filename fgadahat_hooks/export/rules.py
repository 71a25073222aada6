"""Rules of arithmetic: what meets element by element goes together; weights tie their rows and columns to lines."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.export.slots import FIXED, Sliced
from fgadahat_hooks.export.step import NotFollowedError, Step, rule

_MEETS = "added to or multiplied with what no layer makes"


# ------------------------------------------------------------------ element by element
@rule(
    "clone _to_copy contiguous copy lift_fresh lift_fresh_copy detach alias dropout native_dropout _prelu_kernel "
    "gelu relu relu6 silu hardswish hardsigmoid hardtanh leaky_relu elu celu selu mish softplus where masked_fill"
)
def elementwise(step: Step) -> None:
    """Join the slots that meet; something else of the same length that meets them lets them stay."""
    out = step.out
    met = [(t, line) for t in step.op.inputs if (line := step.line(t)) is not None]
    axes = {line.axis + out.dim() - t.dim() for t, line in met}
    if len(axes) != 1:
        raise NotFollowedError(f"{step.op.name} of different axes")
    axis = axes.pop()
    for t in step.op.inputs:
        place = axis - (out.dim() - t.dim())
        if place >= 0 and t.shape[place] > 1:
            line = step.line(t)
            slots = torch.full((t.shape[place],), FIXED, device="cpu") if line is None else line.slots
            step.slots.join(met[0][1].slots, slots, _MEETS)
    step.put(out, axis, met[0][1].slots)


# ------------------------------------------------------------------ along other axes
@rule("sum mean amax amin max min norm linalg_vector_norm std var median nansum logsumexp argmax argmin any all")
def _reduce(step: Step) -> None:
    bound = step.op.bound
    if isinstance(bound.get("other"), Tensor):
        elementwise(step)
        return
    line, x, dims = step.only(), step.op.args[0], bound.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    reduced = {d % x.dim() for d in dims} if dims else set(range(x.dim()))
    if line.axis in reduced:
        raise NotFollowedError(f"{step.op.name} over the units")
    axis = line.axis if bound.get("keepdim") else line.axis - sum(d < line.axis for d in reduced)
    for out in step.outs:
        step.put(out, axis, line.slots)


@rule("_softmax _log_softmax softmax log_softmax cumsum sort topk")
def _along(step: Step) -> None:
    line, x = step.only(), step.op.args[0]
    if step.op.bound["dim"] % x.dim() == line.axis:
        raise NotFollowedError(f"{step.op.name} over the units")
    for out in step.outs:
        step.put(out, line.axis, line.slots)


@rule(
    "avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices adaptive_max_pool2d max_pool2d "
    "upsample_bilinear2d upsample_bicubic2d upsample_nearest2d _upsample_nearest_exact2d mkldnn_max_pool2d "
    "mkldnn_adaptive_avg_pool2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
)
def _plane(step: Step) -> None:
    _over_last(step, 2)


@rule(
    "avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d max_pool1d max_pool1d_with_indices upsample_linear1d "
    "upsample_nearest1d _upsample_nearest_exact1d"
)
def _line(step: Step) -> None:
    _over_last(step, 1)


@rule(
    "avg_pool3d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d max_pool3d max_pool3d_with_indices "
    "mkldnn_max_pool3d upsample_trilinear3d upsample_nearest3d _upsample_nearest_exact3d"
)
def _volume(step: Step) -> None:
    _over_last(step, 3)


def _over_last(step: Step, axes: int) -> None:
    """Keep the line along the axis before so many last ones, over which a window runs."""
    line = step.only()
    if line.axis != step.out.dim() - 1 - axes:
        raise NotFollowedError(f"{step.op.name} over the units")
    step.put(step.out, line.axis, line.slots)


# ------------------------------------------------------------------ norms with fixed statistics
@rule(
    "native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_no_update _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training"
)
def _batch_norm(step: Step) -> None:
    x, *vectors = step.op.args[:5]
    line = step.line(x)
    if line is None or line.axis != 1:
        raise NotFollowedError("batch norm of what no layer makes")
    for vector in vectors:
        if isinstance(vector, Tensor):
            _tie(step, line.slots, vector)
    step.put(step.out, 1, line.slots)


def _tie(step: Step, slots: Tensor, vector: Tensor) -> None:
    """Join slots with those of a vector that stands beside them."""
    line = step.line(vector)
    step.slots.join(slots, torch.full_like(slots, FIXED) if line is None else line.slots, "beside an unknown vector")


# ------------------------------------------------------------------ weights
@rule("convolution")
def _convolve(step: Step) -> None:
    x, weight, bias, *_, transposed, _, groups = step.op.args
    entry = step.table.weight(weight)
    if entry is None or entry.kind is None or not _is_all_of(entry, weight) or groups != entry.groups:
        raise NotFollowedError("convolution with an unknown weight")
    if transposed != (entry.kind.weight_axis == 1):
        raise NotFollowedError("convolution by another layer's weight")
    slots = _input(step, x, 1, weight.shape[0] if transposed else weight.shape[1] * groups)
    if groups == 1:
        _read(step, entry, slots, f"read by '{entry.layer}' beside what no layer makes")
    else:
        _join_groups(step, entry, slots)
    _output(step, entry, bias, 1)


def _is_all_of(entry: Sliced, t: Tensor) -> bool:
    return int(t.storage_offset()) == 0 and (t.shape, t.stride()) == (entry.shape, entry.stride)


def _join_groups(step: Step, entry: Sliced, slots: Tensor) -> None:
    """A group goes with all its inputs and outputs; it alone reads them, so they need not be zero."""
    inputs, rows = slots.view(entry.groups, -1), _units(entry).view(entry.groups, -1)
    reason = f"in a group of '{entry.layer}' with what no layer makes"
    blocks = (rows, inputs) if entry.apart is None else (rows, inputs, entry.axes[0].view(entry.groups, -1))
    for block in blocks:
        step.slots.join(rows[:, :1].expand_as(block).flatten(), block.flatten(), reason)


@rule("mm addmm")
def _multiply(step: Step) -> None:
    bias, x, weight = step.op.args[:3] if step.op.name == "addmm" else (None, *step.op.args[:2])
    entry = step.table.weight(weight)
    if entry is None or entry.kind is None:
        raise NotFollowedError("product with an unknown weight")
    if not _is_all_of(entry, weight.t() if entry.kind.weight_axis == 0 else weight):
        raise NotFollowedError("product with an unknown weight")
    _read(step, entry, _input(step, x, 1, weight.shape[0]), f"'{entry.layer}' reads an input of the model")
    _output(step, entry, bias, 1)


@rule("embedding")
def _look_up(step: Step) -> None:
    weight = step.op.args[0]
    entry = step.table.weight(weight)
    if entry is None or entry.inputs is not None or not _is_all_of(entry, weight):
        raise NotFollowedError("a weight used as a table")
    _output(step, entry, None, step.out.dim() - 1)


def _read(step: Step, entry: Sliced, slots: Tensor, reason: str) -> None:
    if entry.inputs is None:
        raise NotFollowedError("a weight without input features")
    step.slots.join(entry.inputs, slots, reason)


def _input(step: Step, x: Tensor, axis: int, features: int) -> Tensor:
    """Return the slots along the axis that a weight reads; `FIXED` if `x` is not followed."""
    line = step.line(x)
    if line is None:
        return torch.full((features,), FIXED, device="cpu")
    if line.axis != axis or len(line.slots) != features:
        raise NotFollowedError("product over another axis than the units'")
    return line.slots


def _output(step: Step, entry: Sliced, bias: Tensor | None, axis: int) -> None:
    entry.used = True
    if bias is not None:
        _tie(step, _units(entry), bias)
    step.put(step.out, axis, _units(entry))


def _units(entry: Sliced) -> Tensor:
    if entry.outputs is None:
        raise NotFollowedError("a weight whose units cannot be cut")
    return entry.outputs
