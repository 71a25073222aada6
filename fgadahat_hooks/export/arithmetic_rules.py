"""Propagation rules of arithmetic without parameters: element by element, reductions, pooling."""

from __future__ import annotations

from torch import Tensor

from fgadahat_hooks.export.channel_groups import untracked
from fgadahat_hooks.export.propagation_step import NotPropagatedError, PropagationStep, rule

_UNTRACKED_OPERAND = "added to or multiplied with what no layer makes"


# ------------------------------------------------------------------ element by element
@rule(
    "clone _to_copy contiguous copy lift_fresh lift_fresh_copy detach alias dropout native_dropout _prelu_kernel "
    "gelu relu relu6 silu hardswish hardsigmoid hardtanh leaky_relu elu celu selu mish softplus where masked_fill"
)
def elementwise(step: PropagationStep) -> None:
    """Join channels at equal positions; an untracked operand that is not broadcast along the axis keeps them."""
    out = step.out
    tracked = [(t, found) for t in step.op.inputs if (found := step.channel_axis(t)) is not None]
    axes = {found.axis + out.dim() - t.dim() for t, found in tracked}
    if len(axes) != 1:
        raise NotPropagatedError(f"{step.op.name} of different axes")
    axis, channels = axes.pop(), tracked[0][1].channels
    for t in step.op.inputs:
        own_axis = axis - (out.dim() - t.dim())
        if own_axis >= 0 and t.shape[own_axis] > 1:
            found = step.channel_axis(t)
            others = untracked(t.shape[own_axis]) if found is None else found.channels
            step.groups.join(channels, others, _UNTRACKED_OPERAND)
    step.record(out, axis, channels)


# ------------------------------------------------------------------ along other axes
@rule("sum mean amax amin max min norm linalg_vector_norm std var median nansum logsumexp argmax argmin any all")
def _reduce(step: PropagationStep) -> None:
    bound = step.op.bound
    if isinstance(bound.get("other"), Tensor):
        elementwise(step)
        return
    source, x, dims = step.single_input(), step.op.args[0], bound.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    reduced = {d % x.dim() for d in dims} if dims else set(range(x.dim()))
    if source.axis in reduced:
        raise NotPropagatedError(f"{step.op.name} over the units")
    axis = source.axis if bound.get("keepdim") else source.axis - sum(d < source.axis for d in reduced)
    for out in step.outs:
        step.record(out, axis, source.channels)


@rule("_softmax _log_softmax softmax log_softmax cumsum sort topk")
def _along_one_axis(step: PropagationStep) -> None:
    source, x = step.single_input(), step.op.args[0]
    if step.op.bound["dim"] % x.dim() == source.axis:
        raise NotPropagatedError(f"{step.op.name} over the units")
    for out in step.outs:
        step.record(out, source.axis, source.channels)


# ------------------------------------------------------------------ pooling and resizing
@rule(
    "avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices adaptive_max_pool2d max_pool2d "
    "upsample_bilinear2d upsample_bicubic2d upsample_nearest2d _upsample_nearest_exact2d mkldnn_max_pool2d "
    "mkldnn_adaptive_avg_pool2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
)
def _pool2d(step: PropagationStep) -> None:
    _pool(step, 2)


@rule(
    "avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d max_pool1d max_pool1d_with_indices upsample_linear1d "
    "upsample_nearest1d _upsample_nearest_exact1d"
)
def _pool1d(step: PropagationStep) -> None:
    _pool(step, 1)


@rule(
    "avg_pool3d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d max_pool3d max_pool3d_with_indices "
    "mkldnn_max_pool3d upsample_trilinear3d upsample_nearest3d _upsample_nearest_exact3d"
)
def _pool3d(step: PropagationStep) -> None:
    _pool(step, 3)


def _pool(step: PropagationStep, spatial: int) -> None:
    """Keep the channel axis if it is the one before the last `spatial` axes, over which a window runs."""
    source = step.single_input()
    if source.axis != step.out.dim() - 1 - spatial:
        raise NotPropagatedError(f"{step.op.name} over the units")
    step.record(step.out, source.axis, source.channels)
