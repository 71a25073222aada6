"""Torch functions, classified by what they do to activations, and one call of such a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


class FunctionKind(Enum):
    """What a function does to activations; the rules of DeepLIFT and LRP go by it."""

    REARRANGE = "moves elements to other positions, perhaps with another sign or type"
    SCALE = "multiplies element by element with constants"
    SUM = "adds elements"
    WEIGHTED_SUM = "adds elements, multiplied by weights"
    FIXED_NORM = "shifts and scales each channel by stored statistics"
    ELEMENTWISE = "a non-linear function of each element"
    MAX_POOL = "the maximum of a window"
    PRODUCT = "multiplies activations by activations"
    JOINT = "a non-linear function of several elements"
    DECISION = "a comparison or another step function"
    UNKNOWN = "anything else"


_CONV = "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution conv_tbc"
_NAMES: dict[FunctionKind, str] = {
    FunctionKind.REARRANGE: """
        view view_as reshape reshape_as flatten unflatten ravel squeeze unsqueeze transpose permute swapaxes swapdims
        movedim moveaxis t adjoint get getitem setitem select narrow slice index_select gather take take_along_dim
        chunk split tensor_split split_with_sizes unsafe_chunk unsafe_split unbind hsplit vsplit dsplit expand
        expand_as broadcast_to broadcast_tensors repeat tile repeat_interleave roll flip fliplr flipud rot90 contiguous
        clone alias detach requires_grad to type type_as double float half bfloat16 cpu cuda cat concat concatenate
        stack hstack vstack dstack column_stack block_diag pad constant_pad_nd pixel_shuffle pixel_unshuffle
        channel_shuffle native_channel_shuffle masked_fill masked_select masked_scatter where scatter index_put
        index_copy index_fill copy tril triu diag diagonal diag_embed as_strided unfold neg negative positive dropout
        alpha_dropout feature_dropout feature_alpha_dropout dropout1d dropout2d dropout3d atleast_1d atleast_2d
        atleast_3d identity as_tensor asarray fill zero
    """,
    FunctionKind.SCALE: "mul multiply div divide true_divide",
    FunctionKind.SUM: """
        add sub subtract rsub sum mean cumsum diff trace index_add scatter_add fold avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample upsample_nearest
        upsample_bilinear
    """,
    FunctionKind.WEIGHTED_SUM: f"""
        linear {_CONV} matmul mm bmm mv dot vdot inner outer ger kron cross tensordot einsum addmm addmv addbmm baddbmm
        addr addcmul bilinear lerp
    """,
    FunctionKind.FIXED_NORM: "batch_norm",
    FunctionKind.ELEMENTWISE: """
        relu relu6 leaky_relu rrelu prelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh hardshrink
        softshrink tanhshrink softsign softplus sigmoid expit tanh logsigmoid log_sigmoid threshold clamp clamp_min
        clamp_max clip abs absolute square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p erf erfc sin cos
        tan asin acos atan arcsin arccos arctan sinh cosh asinh acosh atanh logit pow float_power rpow rdiv
        nan_to_num
    """,
    FunctionKind.MAX_POOL: """
        max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    """,
    FunctionKind.JOINT: """
        softmax log_softmax softmin layer_norm group_norm rms_norm instance_norm local_response_norm normalize glu
        scaled_dot_product_attention multi_head_attention_forward logsumexp cosine_similarity norm vector_norm var std
    """,
    FunctionKind.DECISION: """
        gt greater ge greater_equal lt less le less_equal eq ne not_equal sign sgn heaviside argmax argmin
    """,
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_IN_PLACE = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "ipow": "pow", "idiv": "div"}
_DIVISIONS = frozenset(("div", "divide", "true_divide"))
_ANY_DEGREE = frozenset(("einsum", "bilinear"))
"""Products that may have three factors or more."""
_BATCH_NORM_TRAINING = 5
"""Position of `training` among the arguments of every variant of `batch_norm`."""


class FunctionCall:
    """A function with its arguments, some of which depend on layers.

    Attributes:
        func: The function, as `__torch_function__` gets it.
        name: Its name, the same for function, method, operator and in-place variant.
        inputs: The tensors among its arguments that depend on a layer.
    """

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the tensors that require grad; parameters do not, since they are frozen meanwhile."""
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = name_of(func)
        self._leaves, self._tree = pytree.tree_flatten((args, kwargs))
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        self.inputs: list[Tensor] = [self._leaves[i] for i in self._places]

    def run(self) -> Any:
        """Call the function with its own arguments."""
        return self.func(*self.args, **self.kwargs)

    def run_on(self, inputs: Sequence[Tensor]) -> Any:
        """Call the function with other values in place of `inputs`; these are not overwritten."""
        args, kwargs = self.bind([x.clone() for x in inputs] if self.in_place else inputs)
        return self.func(*args, **kwargs)

    def bind(self, inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with other values in place of `inputs`."""
        leaves = list(self._leaves)
        for place, value in zip(self._places, inputs, strict=True):
            leaves[place] = value
        args, kwargs = pytree.tree_unflatten(leaves, self._tree)
        return args, kwargs

    @cached_property
    def in_place(self) -> bool:
        """Whether the function writes into its first argument."""
        raw = getattr(self.func, "__name__", "")
        if raw.strip("_") in _IN_PLACE or (raw.endswith("_") and not raw.endswith("__")):
            return True
        code = getattr(self.func, "__code__", None)
        names = () if code is None else code.co_varnames[: code.co_argcount]
        if "inplace" not in names:
            return False
        place = names.index("inplace")
        return bool(self.args[place] if place < len(self.args) else self.kwargs.get("inplace"))

    @cached_property
    def kind(self) -> FunctionKind:
        """What this call does to `inputs`."""
        kind = _KINDS.get(self.name, FunctionKind.UNKNOWN)
        if kind is FunctionKind.SCALE and self.name in _DIVISIONS:
            return self._kind_of_division()
        if kind is FunctionKind.FIXED_NORM and self._uses_batch_statistics():
            return FunctionKind.UNKNOWN
        return self._kind_with_several_inputs(kind) if len(self.inputs) > 1 else kind

    def _kind_with_several_inputs(self, kind: FunctionKind) -> FunctionKind:
        """Return the kind of a call if several of its arguments depend on a layer."""
        if kind is FunctionKind.SCALE:
            return FunctionKind.PRODUCT
        if kind is FunctionKind.WEIGHTED_SUM:
            too_many = len(self.inputs) > 2 and self.name in _ANY_DEGREE
            return FunctionKind.UNKNOWN if too_many else FunctionKind.PRODUCT
        if kind in (FunctionKind.FIXED_NORM, FunctionKind.ELEMENTWISE, FunctionKind.MAX_POOL):
            return FunctionKind.UNKNOWN
        return kind

    def _kind_of_division(self) -> FunctionKind:
        if self.kwargs.get("rounding_mode") is not None:
            return FunctionKind.UNKNOWN
        denominator = self.args[1] if len(self.args) > 1 else self.kwargs.get("other")
        if not isinstance(denominator, Tensor) or not denominator.requires_grad:
            return FunctionKind.SCALE
        return FunctionKind.PRODUCT if len(self.inputs) > 1 else FunctionKind.ELEMENTWISE

    def _uses_batch_statistics(self) -> bool:
        place = _BATCH_NORM_TRAINING
        return bool(self.args[place] if place < len(self.args) else self.kwargs.get("training"))

    @property
    def is_quotient(self) -> bool:
        """Whether both numerator and denominator depend on a layer."""
        return self.name in _DIVISIONS and self.kind is FunctionKind.PRODUCT


def name_of(func: Callable[..., Any]) -> str:
    """Return a function's name, the same for all its variants: without underscores, in place or not."""
    name = str(getattr(func, "__name__", func)).split(".")[0].strip("_").removesuffix("_with_indices")
    return _IN_PLACE.get(name, name)
