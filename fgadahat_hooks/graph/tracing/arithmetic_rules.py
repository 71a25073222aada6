"""What each arithmetic operation does to labels.

A rule reads the labels of an operation's inputs and returns those of its (first) output, or labels that broadcast to
it. The outputs of an operation without a rule are live: always safe, only less exact. Operations are named as in ATen,
without the in-place underscore. Zero times infinity and zero by zero are left out: where they occur, the model gives
NaN with or without gates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.labels import LIVE, constant
from fgadahat_hooks.graph.tracing.rule_registry import RuleContext, rule


# ------------------------------------------------------------------ element-wise, zero stays zero
@rule(
    "relu relu6 gelu silu hardswish leaky_relu elu celu selu tanh abs neg sqrt square sin asin sinh atan sign round "
    "floor ceil trunc erf mish dropout native_dropout hardshrink softshrink expm1 log1p nan_to_num prelu "
    "_prelu_kernel positive alias detach sgn asinh atanh erfinv frac tan clone _to_copy contiguous lift_fresh "
    "lift_fresh_copy"
)
def _copy(ctx: RuleContext) -> Tensor:
    return ctx.arg(0)


@rule("hardtanh clamp clamp_min clamp_max threshold")
def _clamp(ctx: RuleContext) -> Tensor:
    """Keep the labels if the bounds map zero to zero."""
    bounds = {k: v for k, v in ctx.op.bound.items() if k != "self"}
    if any(isinstance(b, Tensor) for b in bounds.values()):
        return constant(LIVE)
    probe = torch.zeros(1, dtype=torch.float64, device="cpu")
    function = getattr(torch.ops.aten, ctx.op.name)
    return ctx.arg(0) if function(probe, *ctx.op.args[1:], **ctx.op.kwargs).item() == 0 else constant(LIVE)


@rule("pow")
def _power(ctx: RuleContext) -> Tensor:
    base, exponent = ctx.op.args[:2]
    positive = isinstance(base, Tensor) and isinstance(exponent, int | float) and exponent > 0
    return ctx.labels(base) if positive else constant(LIVE)


# ------------------------------------------------------------------ sums and products
@rule("add sub rsub maximum minimum hypot lerp")
def _sum(ctx: RuleContext) -> Tensor:
    """Join both terms; a float zero counts as live, because a schedule may change it."""
    terms = (constant(LIVE) if isinstance(a, float) else ctx.labels(a) for a in ctx.op.args[:2])
    return ctx.table.join_tensors(*terms)


@rule("mul")
def _product(ctx: RuleContext) -> Tensor:
    """Meet both factors; a number counts as live, because a schedule may change it."""
    a, b = (ctx.labels(x) if isinstance(x, Tensor) else constant(LIVE) for x in ctx.op.args[:2])
    return ctx.table.meet_tensors(a, b)


@rule("div true_divide floor_divide")
def _quotient(ctx: RuleContext) -> Tensor:
    """Keep the numerator's labels unless gates can make the denominator zero too."""
    numerator, denominator = ctx.op.args[:2]
    if isinstance(denominator, Tensor) and ctx.store.has(denominator):
        return constant(LIVE)
    return ctx.labels(numerator)


@rule("addcmul")
def _addcmul(ctx: RuleContext) -> Tensor:
    return ctx.table.join_tensors(ctx.arg(0), ctx.table.meet_tensors(ctx.arg(1), ctx.arg(2)))


@rule("where")
def _where(ctx: RuleContext) -> Tensor:
    return ctx.table.join_tensors(ctx.arg(1), ctx.arg(2))


@rule("masked_fill")
def _masked_fill(ctx: RuleContext) -> Tensor:
    return ctx.table.join_tensors(ctx.arg(0), ctx.arg(2))


@rule("copy")
def _copy_from(ctx: RuleContext) -> Tensor:
    return ctx.arg(1)


# ------------------------------------------------------------------ reductions: the join of what is reduced
@rule("sum mean amax amin max min norm linalg_vector_norm std var median nansum")
def _reduce(ctx: RuleContext) -> Tensor:
    bound = ctx.op.bound
    if isinstance(bound.get("other"), Tensor):
        return _sum(ctx)
    labels, dims = ctx.arg(0), bound.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    reduced = ctx.table.join_over(labels, list(dims) if dims else range(labels.dim()))
    if not bound.get("keepdim"):
        for d in sorted((d % labels.dim() for d in dims or range(labels.dim())), reverse=True):
            reduced = reduced.squeeze(d)
    return reduced


@rule("cumsum sort topk")
def _mix_along_axis(ctx: RuleContext) -> Tensor:
    """Give every position along the axis the join over the axis."""
    return ctx.table.join_over(ctx.arg(0), [ctx.op.bound["dim"]])


@rule(
    "avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices adaptive_max_pool2d max_pool2d "
    "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa mkldnn_max_pool2d "
    "upsample_nearest2d _upsample_nearest_exact2d mkldnn_adaptive_avg_pool2d"
)
def _over_plane(ctx: RuleContext) -> Tensor:
    """Give every position of a feature map the join over the whole map."""
    return ctx.table.join_over(ctx.arg(0), [-2, -1])


@rule(
    "avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d max_pool1d max_pool1d_with_indices upsample_linear1d "
    "upsample_nearest1d _upsample_nearest_exact1d"
)
def _over_length(ctx: RuleContext) -> Tensor:
    return ctx.table.join_over(ctx.arg(0), [-1])


@rule(
    "avg_pool3d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d max_pool3d max_pool3d_with_indices "
    "mkldnn_max_pool3d upsample_trilinear3d upsample_nearest3d _upsample_nearest_exact3d"
)
def _over_volume(ctx: RuleContext) -> Tensor:
    return ctx.table.join_over(ctx.arg(0), [-3, -2, -1])


# ------------------------------------------------------------------ products of activations
@rule("mm bmm")
def _matmul(ctx: RuleContext) -> Tensor:
    return _matmul_labels(ctx, 0, 1)


@rule("addmm baddbmm")
def _addmm(ctx: RuleContext) -> Tensor:
    return ctx.table.join_tensors(ctx.arg(0), _matmul_labels(ctx, 1, 2).expand(ctx.shape))


def _matmul_labels(ctx: RuleContext, a: int, b: int) -> Tensor:
    """Return labels of `a @ b`: an entry is zero if its row of `a` or its column of `b` is."""
    rows, columns = ctx.table.join_over(ctx.arg(a), [-1]), ctx.table.join_over(ctx.arg(b), [-2])
    return ctx.table.meet_tensors(rows, columns)


@rule(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "scaled_dot_product_attention _scaled_dot_product_attention_math"
)
def _attention(ctx: RuleContext) -> Tensor:
    """Join the values over the positions, channel by channel."""
    return ctx.table.join_over(ctx.arg(2), [-2])
