"""What each tensor operation does to labels.

A rule reads the labels of an operation's inputs and gives those of its (first) output. An operation without a rule
gives live outputs: always safe, only less exact. Operations are named as in ATen without the in-place underscore.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.tracing.labels import LIVE, ZERO, LabelTable
from fgadahat_hooks.tracing.store import LabelStore


@dataclass(frozen=True)
class Call:
    """One executed operation: its arguments by name, its output, and where labels are."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    bound: dict[str, Any]
    out: Any
    table: LabelTable
    store: LabelStore

    def labels(self, x: Any) -> Tensor:
        """Return the labels of a tensor argument; a number is `ZERO` if it is zero, else live."""
        if not isinstance(x, Tensor):
            return torch.tensor(ZERO if _is_zero(x) else LIVE, dtype=torch.int32)
        found = self.store.get(x)
        return torch.tensor(LIVE, dtype=torch.int32).expand(x.shape) if found is None else found

    @property
    def shape(self) -> torch.Size:
        """Shape of the first output."""
        first = self.out[0] if isinstance(self.out, list | tuple) else self.out
        return torch.Size(first.shape)


Rule = Callable[[Call], Tensor]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return add


def _is_zero(x: Any) -> bool:
    return isinstance(x, int | float | complex) and x == 0


# ------------------------------------------------------------------ element-wise, zero stays zero
@rule(
    *(
        "relu relu6 gelu silu hardswish leaky_relu elu celu selu tanh abs neg sqrt square sin asin sinh atan sign"
    ).split(),
    *("round floor ceil trunc erf mish dropout alpha_dropout native_dropout hardshrink softshrink expm1 log1p").split(),
    *("nan_to_num prelu _prelu_kernel positive rrelu_with_noise detach alias sgn asinh atanh erfinv frac").split(),
)
def _copy(call: Call) -> Tensor:
    return call.labels(call.args[0])


@rule("hardtanh", "clamp", "clamp_min", "clamp_max", "threshold")
def _clamp(call: Call) -> Tensor:
    """Keep labels if the bounds leave zero alone."""
    probe = torch.zeros(1, dtype=torch.float64)
    numbers = all(isinstance(a, int | float | None) for a in [*call.args[1:], *call.kwargs.values()])
    name = call.func.overloadpacket.__name__.removesuffix("_")
    if numbers and getattr(torch.ops.aten, name)(probe, *call.args[1:], **call.kwargs).item() == 0:
        return call.labels(call.args[0])
    return call.labels(1).expand(call.shape)


@rule("pow")
def _power(call: Call) -> Tensor:
    base, exponent = call.args[:2]
    if isinstance(base, Tensor) and isinstance(exponent, int | float) and exponent > 0:
        return call.labels(base)
    return call.labels(1).expand(call.shape)


# ------------------------------------------------------------------ sums and products
@rule("add", "sub", "rsub", "maximum", "minimum", "hypot", "fmod")
def _sum(call: Call) -> Tensor:
    return call.table.either(call.labels(call.args[0]), call.labels(call.args[1]))


@rule("mul")
def _product(call: Call) -> Tensor:
    return call.table.both(call.labels(call.args[0]), call.labels(call.args[1]))


@rule("div", "true_divide", "floor_divide")
def _quotient(call: Call) -> Tensor:
    return call.labels(call.args[0]).expand(call.shape)


@rule("addcmul")
def _addcmul(call: Call) -> Tensor:
    base, one, two = (call.labels(a) for a in call.args[:3])
    return call.table.either(base, call.table.both(one, two))


@rule("lerp")
def _lerp(call: Call) -> Tensor:
    return call.table.either(call.labels(call.args[0]), call.labels(call.args[1])).expand(call.shape)


@rule("where")
def _where(call: Call) -> Tensor:
    if len(call.args) < 3:
        return call.labels(1).expand(call.shape)
    return call.table.either(call.labels(call.args[1]), call.labels(call.args[2])).expand(call.shape)


@rule("masked_fill")
def _masked_fill(call: Call) -> Tensor:
    return call.table.either(call.labels(call.args[0]), call.labels(call.args[2])).expand(call.shape)


# ------------------------------------------------------------------ moving elements: the same operation on the labels
_DROP = {"memory_format", "dtype", "device", "layout", "pin_memory", "non_blocking"}


def _replay(call: Call, args: Sequence[Any]) -> Tensor:
    """Run the operation itself on label tensors; through float64, exact for labels, if it has no integer kernel."""
    kwargs = {k: v for k, v in call.kwargs.items() if k not in _DROP}
    try:
        return _first(call.func(*args, **kwargs))
    except (RuntimeError, NotImplementedError):
        floats = pytree.tree_map_only(Tensor, lambda t: t.double() if t.dtype == torch.int32 else t, list(args))
        return _first(call.func(*floats, **kwargs)).to(torch.int32)


def _first(out: Any) -> Tensor:
    first: Tensor = out[0] if isinstance(out, list | tuple) else out
    return first


@rule("clone", "_to_copy", "contiguous", "lift_fresh", "lift_fresh_copy")
def _same_elements(call: Call) -> Tensor:
    return call.labels(call.args[0])


@rule(
    *(
        "roll flip repeat pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col rot90 tril"
    ).split(),
    *("triu reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d diagonal_copy unfold_copy").split(),
    *("upsample_nearest1d upsample_nearest2d upsample_nearest3d _reshape_copy view_copy expand_copy").split(),
)
def _move(call: Call) -> Tensor:
    return _replay(call, [call.labels(call.args[0]).contiguous(), *call.args[1:]])


@rule("cat", "stack")
def _join_tensors(call: Call) -> Tensor:
    return _replay(call, [[call.labels(t) for t in call.args[0]], *call.args[1:]])


@rule("index", "index_select", "gather", "repeat_interleave")
def _pick(call: Call) -> Tensor:
    on_cpu = pytree.tree_map_only(Tensor, lambda t: t.cpu(), list(call.args[1:]))
    return _replay(call, [call.labels(call.args[0]).contiguous(), *on_cpu])


@rule("constant_pad_nd")
def _pad(call: Call) -> Tensor:
    fill = call.bound["value"]
    return torch.constant_pad_nd(call.labels(call.args[0]).contiguous(), call.args[1], ZERO if _is_zero(fill) else LIVE)


@rule("slice_scatter", "select_scatter")
def _scatter_view(call: Call) -> Tensor:
    source = call.labels(call.args[1]).contiguous()
    return _replay(call, [call.labels(call.args[0]).contiguous(), source, *call.args[2:]])


@rule("copy")
def _copy_from(call: Call) -> Tensor:
    return call.labels(call.args[1]).expand(call.shape)


# ------------------------------------------------------------------ reductions: the union of what is reduced
@rule(
    *("sum mean amax amin max min norm linalg_vector_norm std var median nansum").split(),
)
def _reduce(call: Call) -> Tensor:
    labels = call.labels(call.args[0])
    dims = call.bound.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    if isinstance(dims, Tensor) or isinstance(call.bound.get("other"), Tensor):
        return _sum(call)
    reduced = call.table.over(labels, list(dims) if dims else range(labels.dim()))
    return reduced.reshape(call.shape)


@rule("cumsum", "sort", "topk", "kthvalue")
def _along(call: Call) -> Tensor:
    """Give every place along the axis the union over the axis."""
    reduced = call.table.over(call.labels(call.args[0]), [call.bound["dim"]])
    return reduced.expand(call.shape)


@rule(
    *("avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices adaptive_max_pool2d").split(),
    *("upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa max_pool2d").split(),
    *("mkldnn_max_pool2d mkldnn_adaptive_avg_pool2d").split(),
)
def _over_plane(call: Call) -> Tensor:
    """Give every position of a map the union over the whole map."""
    return call.table.over(call.labels(call.args[0]), [-2, -1]).expand(call.shape)


@rule("avg_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "upsample_linear1d", "max_pool1d_with_indices")
def _over_line(call: Call) -> Tensor:
    return call.table.over(call.labels(call.args[0]), [-1]).expand(call.shape)


# ------------------------------------------------------------------ products of activations
@rule("mm", "bmm")
def _matmul(call: Call) -> Tensor:
    return matmul_labels(call, call.args[0], call.args[1]).expand(call.shape)


@rule("addmm", "baddbmm")
def _addmm(call: Call) -> Tensor:
    product = matmul_labels(call, call.args[1], call.args[2])
    return call.table.either(call.labels(call.args[0]), product).expand(call.shape)


def matmul_labels(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Labels of `a @ b`: each entry needs something in its row of `a` and in its column of `b`."""
    rows = call.table.over(call.labels(a), [-1])
    columns = call.table.over(call.labels(b), [-2])
    return call.table.both(rows, columns)


@rule(
    *("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention").split(),
    *("_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention").split(),
    *("scaled_dot_product_attention _scaled_dot_product_attention_math").split(),
)
def _attention(call: Call) -> Tensor:
    """Mix the values over the positions: the union over them, channel by channel."""
    values = call.table.over(call.labels(call.args[2]), [-2])
    return values.expand(call.shape)


# ------------------------------------------------------------------ zeros
FACTORIES = {"zeros", "zeros_like", "new_zeros", "zero"}


def fill_label(name: str, args: Sequence[Any]) -> int | None:
    """Return the label an operation fills its output with, whatever the inputs; None if it does no such thing."""
    if name in FACTORIES:
        return ZERO
    if name == "fill":
        return ZERO if _is_zero(args[1]) else LIVE
    return None
