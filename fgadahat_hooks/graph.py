"""Units, producers and consumers: the pure data that tracing leaves behind.

A *unit* is one output feature of a gated `nn.Linear` or one output channel of a gated `nn.Conv2d`. Units of all gated
layers are numbered through, layer after layer in the order of execution, so that a value per unit of the whole model
is one flat vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Position = Literal["output", "after_norm", "weight"]


@dataclass(frozen=True)
class InputMap:
    """Which units feed each input feature of one layer.

    Attributes:
        features: Number of input features (over all groups).
        live: `(features,)` bool, True where the input can be non-zero whatever the gates say: fed by an ungated or
            unknown producer.
        feature: `(n,)` long, input feature of pair `k`.
        unit: `(n,)` long, model-wide number of the unit of pair `k`. A feature that is not live is exactly zero when
            all its units are off; one with no pair and not live is always zero.
    """

    features: int
    live: Tensor
    feature: Tensor
    unit: Tensor

    @classmethod
    def all_live(cls, features: int) -> InputMap:
        """Return the map of a layer about whose inputs nothing is known."""
        empty = torch.empty(0, dtype=torch.long)
        return cls(features, torch.ones(features, dtype=torch.bool), empty, empty)

    @property
    def has_predecessor(self) -> bool:
        """Whether any input comes from a gated layer."""
        return not bool(self.live.all())

    @property
    def resolved(self) -> float:
        """Fraction of the inputs whose producers are known."""
        return 1.0 if self.features == 0 else float((~self.live).double().mean())

    def gather_max(self, values: Tensor, live_value: float | Tensor) -> Tensor:
        """Return for each input feature the largest value of its units: METHOD's union over producers.

        Args:
            values: One value per unit of the whole model, `(total units,)`.
            live_value: What a live input gets. A feature with no unit at all gets 0.

        Returns:
            `(features,)`, on the device and with the dtype of `values`.
        """
        device = values.device
        out = values.new_zeros(self.features)
        out.scatter_reduce_(0, self.feature.to(device), values[self.unit.to(device)], "amax", include_self=True)
        return torch.where(self.live.to(device), torch.as_tensor(live_value, dtype=values.dtype, device=device), out)


@dataclass(frozen=True)
class Activation:
    """The element-wise function that follows a gated output: the name of an ATen operation and its fixed arguments."""

    name: str
    args: tuple[object, ...] = ()
    kwargs: tuple[tuple[str, object], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the function out of place."""
        out: Tensor = getattr(torch.ops.aten, self.name)(x, *self.args, **dict(self.kwargs))
        return out


@dataclass(frozen=True)
class UnitLayer:
    """One gated layer.

    Attributes:
        name: Dotted module name.
        units: Number of units.
        offset: Model-wide number of its first unit.
        position: Where the gate acts: on the layer's `output`, `after_norm` (on the output of the BatchNorm that alone
            reads the layer), or on the rows of its `weight` and bias when the forward uses them functionally.
        sites: Names of the modules at which the gate acts.
        read: Name of the module whose output shows the gated units, with the axis that counts them; None if no module
            output does.
        read_axis: The axis, negative, counted from the end.
        activation: The element-wise function that alone reads the gated output; None if there is none.
        whole: True if the weight reaches the computation in a way that mixes its rows or columns (weight
            standardisation, for one): then every entry counts as used by every unit.
    """

    name: str
    units: int
    offset: int
    position: Position
    sites: tuple[str, ...]
    read: str | None
    read_axis: int
    activation: Activation | None = None
    whole: bool = False


@dataclass(frozen=True)
class Consumer:
    """A layer that reads units of another: `unit[k]` (counted inside the producer) feeds input `feature[k]`."""

    layer: str
    unit: Tensor
    feature: Tensor


@dataclass(frozen=True)
class UnitGraph:
    """All gated layers and who feeds whom.

    Attributes:
        layers: The gated layers by name, in order of execution.
        inputs: For every Linear or Conv2d that the forward used, gated or not, who feeds its inputs.
        heads: Names of the layers that give the model's output.
    """

    layers: dict[str, UnitLayer]
    inputs: dict[str, InputMap]
    heads: tuple[str, ...] = ()

    @cached_property
    def total_units(self) -> int:
        """Number of units of all gated layers together."""
        return sum(layer.units for layer in self.layers.values())

    @cached_property
    def layer_of_unit(self) -> Tensor:
        """Number of each unit's layer in the order of `layers`, `(total units,)` long."""
        sizes = torch.tensor([layer.units for layer in self.layers.values()], dtype=torch.long)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """Concatenate one `(units,)` tensor a layer into `(total units,)`."""
        return torch.cat([values[name] for name in self.layers])

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Cut `(total units,)` into one `(units,)` view a layer."""
        return {n: values[u.offset : u.offset + u.units] for n, u in self.layers.items()}

    def consumers(self, name: str) -> list[Consumer]:
        """Return every layer that reads units of layer `name`, heads and ungated layers included."""
        layer = self.layers[name]
        found = []
        for reader, inputs in self.inputs.items():
            mine = (inputs.unit >= layer.offset) & (inputs.unit < layer.offset + layer.units)
            if bool(mine.any()):
                found.append(Consumer(reader, inputs.unit[mine] - layer.offset, inputs.feature[mine]))
        return found
