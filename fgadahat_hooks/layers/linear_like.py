"""Linear layers of other libraries, told by what they have: a matrix `(out, in)`, its two sizes, perhaps a bias."""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.layers.base import weight_of
from fgadahat_hooks.layers.linear import LinearType

_SIZES = (("out_features", "in_features"), ("out_channels", "in_channels"))


def _sizes(module: nn.Module) -> list[tuple[object, object]]:
    return [(getattr(module, out, None), getattr(module, into, None)) for out, into in _SIZES]


class LinearLikeType(LinearType):
    """A layer that looks like `nn.Linear` and is none: that of torch_geometric, for one.

    It is not trusted to compute what `nn.Linear` does: the trace follows its forward, and where anything but
    `x @ weight.T`, the bias and element-wise functions is seen, every entry of the weight counts as used by every unit.
    """

    module_class: ClassVar[type[nn.Module] | str] = nn.Linear

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Return whether a module looks like a linear layer."""
        own = {name: p for name, p in module._parameters.items() if p is not None}
        weight, bias = own.get("weight"), own.get("bias")
        if weight is None or is_lazy(weight) or weight.dim() != 2 or not weight.is_floating_point():
            return False
        if own.keys() - {"weight", "bias"}:
            return False
        if bias is not None and (is_lazy(bias) or tuple(bias.shape) != (weight.shape[0],)):
            return False
        return tuple(weight.shape) in _sizes(module)

    def own_class(self, module: nn.Module) -> type[nn.Module]:
        """Return `nn.Linear`, so that the module's forward counts as one of its own."""
        return nn.Linear

    def update_sizes(self, module: nn.Module) -> None:
        """Set the attributes that give the sizes."""
        for names in _SIZES:
            if all(hasattr(module, name) for name in names):
                for name, size in zip(names, weight_of(module).shape, strict=True):
                    setattr(module, name, size)
