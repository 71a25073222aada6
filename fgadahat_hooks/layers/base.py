"""What the library must know of a layer type: its unit axis and the layout of its weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn


def weight_of(module: nn.Module) -> nn.Parameter:
    """Return the registered weight: while a gate is folded into a layer, its attribute is another tensor.

    Raises:
        AttributeError: The module has no parameter of that name.
    """
    weight = module._parameters.get("weight")
    if weight is None:
        raise AttributeError(f"{type(module).__name__} has no parameter `weight`")
    return weight


class LayerType(ABC):
    """One type of gateable layer. A new type is one file with one subclass, registered under its module class's name.

    All other code that needs to know where units lie in a weight (gates folded into rows, heads of another size,
    export) asks the layer type.
    """

    module_class: ClassVar[type[nn.Module] | str]
    """The module class; or its dotted name, if its library may be missing."""
    unit_axis: ClassVar[int]
    """Axis of units in the layer's output, negative."""
    weight_axis: ClassVar[int] = 0
    """Axis of units in the weight (of the units of one group, if it is grouped); a bias has one axis."""
    shorthand: ClassVar[str] = ""
    """Target that matches all layers of this type, and of others with the same shorthand: `all-linear`, ..."""
    in_all: ClassVar[bool] = True
    """Whether the target `all` matches layers of this type too."""

    @abstractmethod
    def units(self, module: nn.Module) -> int:
        """Return the number of units, i.e. output features or channels."""

    @abstractmethod
    def inputs(self, module: nn.Module) -> int:
        """Return the number of input features or channels over all groups; 0 if the layer reads indices."""

    @abstractmethod
    def unit_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape or expand `(units,)` so that it broadcasts over the weight by unit."""

    @abstractmethod
    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape or expand `(inputs,)` so that it broadcasts over the weight by input feature."""

    @abstractmethod
    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum a weight-shaped tensor over all but the unit axis: `(units,)`."""

    @abstractmethod
    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum a weight-shaped tensor over all but the input axis: `(inputs,)`."""

    def output_view(self, mask: Tensor, output: Tensor) -> Tensor:
        """Reshape a mask `(units,)` so that it broadcasts over the layer's output."""
        shape = [1] * output.dim()
        shape[self.unit_axis] = mask.numel()
        return mask.view(torch.Size(shape))

    def refusal(self, module: nn.Module) -> str:
        """Return why this particular module cannot be gated, as the end of a sentence; empty if it can."""
        return ""

    def update_sizes(self, module: nn.Module) -> None:
        """Update the module's size attributes (`out_features`, ...) after its weight got another shape."""
        for name in ("out_features", "out_channels"):
            if hasattr(module, name):
                setattr(module, name, self.units(module))

    def reset_function(self, module: nn.Module) -> Callable[[], object] | None:
        """Return a function that initialises the parameters as the module's constructor does; None if there is none."""
        return getattr(module, "reset_parameters", None)

    @classmethod
    def is_class(cls, other: type) -> bool:
        """Return whether `other` is the module class itself, not a subclass or another class of the same name."""
        return other is cls.module_class or f"{other.__module__}.{other.__qualname__}" == cls.module_class

    def own_class(self, module: nn.Module) -> type[nn.Module]:
        """Return the module class of this type, found among the base classes of a module's class."""
        return next(cls for cls in type(module).__mro__ if self.is_class(cls))
