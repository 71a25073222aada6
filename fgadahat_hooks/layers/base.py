"""What the library must know of a layer type: its unit axis and the layout of its weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn


class LayerType(ABC):
    """One kind of gateable layer. A new kind is one file with one subclass, registered by its module class.

    Whoever else needs to know where units lie in a weight (gates folded into rows, heads of another size, export) asks
    the layer type.
    """

    module_class: ClassVar[type[nn.Module] | str]
    """The class, or its dotted name where its library need not be installed."""
    unit_axis: ClassVar[int]
    """Axis of the layer's output that counts its units, negative."""
    weight_axis: ClassVar[int] = 0
    """Axis of the weight that counts units, those of one group where there are several; a bias has one axis."""
    shorthand: ClassVar[str] = ""
    """Target that stands for all layers of this type, and of others with the same shorthand: `all-linear`, ..."""
    in_all: ClassVar[bool] = True
    """Whether the target `all` stands for layers of this type too."""

    @abstractmethod
    def units(self, module: nn.Module) -> int:
        """Return the number of units, i.e. output features or channels."""

    @abstractmethod
    def inputs(self, module: nn.Module) -> int:
        """Return the number of input features or channels, over all groups; 0 if it reads no features but numbers."""

    @abstractmethod
    def own_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(units,)` so that it broadcasts over the weight by unit."""

    @abstractmethod
    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(inputs,)` so that it broadcasts over the weight by input feature."""

    @abstractmethod
    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum a weight-shaped tensor over all but the unit axis: `(units,)`."""

    @abstractmethod
    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum a weight-shaped tensor over all but the input axis: `(inputs,)`."""

    def gate_view(self, mask: Tensor, output: Tensor) -> Tensor:
        """Reshape a mask `(units,)` so that it broadcasts over the layer's output."""
        shape = [1] * output.dim()
        shape[self.unit_axis] = mask.numel()
        return mask.view(torch.Size(shape))

    def refusal(self, module: nn.Module) -> str:
        """Return why this very module cannot be gated, as the end of a sentence; empty if it can."""
        return ""

    def tell_sizes(self, module: nn.Module) -> None:
        """Make the attributes true by which the module tells its sizes, after its weight got another shape."""
        for name in ("out_features", "out_channels"):
            if hasattr(module, name):
                setattr(module, name, self.units(module))

    def reset_of(self, module: nn.Module) -> Callable[[], object] | None:
        """Return what draws the module's parameters anew, as its constructor does; None if nothing does."""
        return getattr(module, "reset_parameters", None)

    @classmethod
    def is_class(cls, other: type) -> bool:
        """Return whether `other` is the class that this type is registered for, not a subclass or a namesake."""
        return other is cls.module_class or f"{other.__module__}.{other.__qualname__}" == cls.module_class

    def own_class(self, module: nn.Module) -> type[nn.Module]:
        """Return the class of this type from which a module's class derives."""
        return next(cls for cls in type(module).__mro__ if self.is_class(cls))
