"""What each arithmetic operation does to labels.

A rule reads the labels of an operation's inputs and gives those of its (first) output, or labels that broadcast to
it. An operation without a rule gives live outputs: always safe, only less exact. Operations are named as in ATen
without the in-place underscore. Zero times infinity and zero by zero are left out: where they occur the model gives
NaN with or without gates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.call import Call, rule
from fgadahat_hooks.graph.tracing.labels import LIVE, constant


# ------------------------------------------------------------------ element-wise, zero stays zero
@rule(
    "relu relu6 gelu silu hardswish leaky_relu elu celu selu tanh abs neg sqrt square sin asin sinh atan sign round "
    "floor ceil trunc erf mish dropout native_dropout hardshrink softshrink expm1 log1p nan_to_num prelu "
    "_prelu_kernel positive alias detach sgn asinh atanh erfinv frac tan clone _to_copy contiguous lift_fresh "
    "lift_fresh_copy"
)
def _copy(call: Call) -> Tensor:
    return call.arg(0)


@rule("hardtanh clamp clamp_min clamp_max threshold")
def _clamp(call: Call) -> Tensor:
    """Keep labels if the bounds leave zero alone."""
    bounds = {k: v for k, v in call.op.bound.items() if k != "self"}
    if any(isinstance(b, Tensor) for b in bounds.values()):
        return constant(LIVE)
    probe = torch.zeros(1, dtype=torch.float64, device="cpu")
    function = getattr(torch.ops.aten, call.op.name)
    return call.arg(0) if function(probe, *call.op.args[1:], **call.op.kwargs).item() == 0 else constant(LIVE)


@rule("pow")
def _power(call: Call) -> Tensor:
    base, exponent = call.op.args[:2]
    positive = isinstance(base, Tensor) and isinstance(exponent, int | float) and exponent > 0
    return call.labels(base) if positive else constant(LIVE)


# ------------------------------------------------------------------ sums and products
@rule("add sub rsub maximum minimum hypot lerp")
def _sum(call: Call) -> Tensor:
    """Unite both terms; a float zero is no zero, because a schedule may change it."""
    terms = (constant(LIVE) if isinstance(a, float) else call.labels(a) for a in call.op.args[:2])
    return call.table.either(*terms)


@rule("mul")
def _product(call: Call) -> Tensor:
    """Take the better factor; a number is none, because a schedule may change it."""
    a, b = (call.labels(x) if isinstance(x, Tensor) else constant(LIVE) for x in call.op.args[:2])
    return call.table.both(a, b)


@rule("div true_divide floor_divide")
def _quotient(call: Call) -> Tensor:
    """Keep the numerator's labels unless gates can make the denominator zero too."""
    above, below = call.op.args[:2]
    if isinstance(below, Tensor) and call.store.has(below):
        return constant(LIVE)
    return call.labels(above)


@rule("addcmul")
def _addcmul(call: Call) -> Tensor:
    return call.table.either(call.arg(0), call.table.both(call.arg(1), call.arg(2)))


@rule("where")
def _where(call: Call) -> Tensor:
    return call.table.either(call.arg(1), call.arg(2))


@rule("masked_fill")
def _masked_fill(call: Call) -> Tensor:
    return call.table.either(call.arg(0), call.arg(2))


@rule("copy")
def _copy_from(call: Call) -> Tensor:
    return call.arg(1)


# ------------------------------------------------------------------ reductions: the union of what is reduced
@rule("sum mean amax amin max min norm linalg_vector_norm std var median nansum")
def _reduce(call: Call) -> Tensor:
    bound = call.op.bound
    if isinstance(bound.get("other"), Tensor):
        return _sum(call)
    labels, dims = call.arg(0), bound.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    reduced = call.table.over(labels, list(dims) if dims else range(labels.dim()))
    if not bound.get("keepdim"):
        for d in sorted((d % labels.dim() for d in dims or range(labels.dim())), reverse=True):
            reduced = reduced.squeeze(d)
    return reduced


@rule("cumsum sort topk")
def _along(call: Call) -> Tensor:
    """Give every place along the axis the union over the axis."""
    return call.table.over(call.arg(0), [call.op.bound["dim"]])


@rule(
    "avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices adaptive_max_pool2d max_pool2d "
    "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa mkldnn_max_pool2d "
    "upsample_nearest2d _upsample_nearest_exact2d mkldnn_adaptive_avg_pool2d"
)
def _over_plane(call: Call) -> Tensor:
    """Give every position of a map the union over the whole map."""
    return call.table.over(call.arg(0), [-2, -1])


@rule(
    "avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d max_pool1d max_pool1d_with_indices upsample_linear1d "
    "upsample_nearest1d _upsample_nearest_exact1d"
)
def _over_line(call: Call) -> Tensor:
    return call.table.over(call.arg(0), [-1])


@rule(
    "avg_pool3d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d max_pool3d max_pool3d_with_indices "
    "mkldnn_max_pool3d upsample_trilinear3d upsample_nearest3d _upsample_nearest_exact3d"
)
def _over_volume(call: Call) -> Tensor:
    return call.table.over(call.arg(0), [-3, -2, -1])


# ------------------------------------------------------------------ products of activations
@rule("mm bmm")
def _matmul(call: Call) -> Tensor:
    return _matmul_labels(call, 0, 1)


@rule("addmm baddbmm")
def _addmm(call: Call) -> Tensor:
    return call.table.either(call.arg(0), _matmul_labels(call, 1, 2).expand(call.shape))


def _matmul_labels(call: Call, a: int, b: int) -> Tensor:
    """Labels of `a @ b`: each entry needs something in its row of `a` and in its column of `b`."""
    return call.table.both(call.table.over(call.arg(a), [-1]), call.table.over(call.arg(b), [-2]))


@rule(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "scaled_dot_product_attention _scaled_dot_product_attention_math"
)
def _attention(call: Call) -> Tensor:
    """Mix the values over the positions: the union over them, channel by channel."""
    return call.table.over(call.arg(2), [-2])
