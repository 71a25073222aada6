"""What the library must know of a layer type: its unit axis and the layout of its weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class LayerType(ABC):
    """One kind of gateable layer. A new kind is one file with one subclass, registered by its module class.

    The weight's axis 0 is the unit axis for every type so far; a type with another layout overrides the four views.
    """

    module_class: ClassVar[type[nn.Module]]
    unit_axis: ClassVar[int]
    """Axis of the layer's output that counts its units."""

    @abstractmethod
    def units(self, module: nn.Module) -> int:
        """Return the number of units, i.e. output features or channels."""

    @abstractmethod
    def inputs(self, module: nn.Module) -> int:
        """Return the number of input features or channels, over all groups."""

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
