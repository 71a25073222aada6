"""Units, producers and consumers: the result of a trace, as plain data.

A *unit* is one output feature of a gated linear layer or embedding, or one output channel of a gated convolution. The
units of all gated layers are numbered consecutively, layer after layer in the order of execution, so that one value a
unit of the whole model is one flat vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

GATE = "hat_gate"
"""Name of the child module that a gated layer gets; it is no module of the model's own."""

Position = Literal["output", "after_norm", "weight"]


@dataclass(frozen=True)
class InputMap:
    """Which units feed each input feature of one layer.

    Attributes:
        features: Number of input features (over all groups).
        live: `(features,)` bool, True where the input can be non-zero whatever the gates do: its producer is ungated or
            unknown.
        feature: `(n,)` long, input feature of pair `k`.
        unit: `(n,)` long, model-wide number of the unit of pair `k`. A feature that is not live is exactly zero when
            all its units are off; a feature that is not live and has no pair is always zero.
        group: `(n,)` long, the set of its feature to which pair `k` belongs, counted from 0; None if no feature has two
            sets. A feature with several sets is a product: it is zero if all units of any of its sets are off.
    """

    features: int
    live: Tensor
    feature: Tensor
    unit: Tensor
    group: Tensor | None = None

    @classmethod
    def all_live(cls, features: int) -> InputMap:
        """Return the map of a layer whose inputs are all live."""
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
        """Return for each input feature the largest value of its units: the union over its producers.

        For a feature with several sets, it is the smallest of the sets' largest values.

        Args:
            values: One value a unit of the whole model, `(total units,)`, none negative.
            live_value: The value of a live input. A feature that is not live and has no unit gets 0.

        Returns:
            `(features,)`, on the device and with the dtype of `values`.
        """
        device = values.device
        live = self.live.to(device)
        largest = self._largest(values[self.unit.to(device)])
        return torch.where(live, torch.as_tensor(live_value, dtype=values.dtype, device=device), largest)

    def _largest(self, picked: Tensor) -> Tensor:
        """Return the largest value of each feature, given one value a pair, `(n,)`; 0 for a feature without pairs."""
        feature = self.feature.to(picked.device)
        if self.group is None:
            return picked.new_zeros(self.features).scatter_reduce(0, feature, picked, "amax")
        group = self.group.to(picked.device)
        width = int(self.group.max()) + 1
        sets = picked.new_full((self.features * width,), float("inf"))
        sets = sets.scatter_reduce(0, feature * width + group, picked, "amax", include_self=False)
        smallest = sets.view(self.features, width).amin(1)
        empty = torch.ones_like(smallest, dtype=torch.bool).index_fill(0, feature, False)
        return smallest.masked_fill(empty, 0.0)


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
        position: Where the gate acts: on the layer's `output`, `after_norm` (on the output of the BatchNorms that alone
            read the layer), or on the rows of its `weight` and bias if the forward uses them functionally.
        sites: Names of the modules at which the gate acts.
        output_module: Name of the module whose output shows the gated units; None if no module's output does.
        output_axis: The axis of that output that counts the units, negative.
        activation: The element-wise function that alone reads the gated output; None if there is none.
        mixed_weight: True if the weight is used in a way that mixes its rows or columns (weight standardisation, for
            one): then every entry counts as used by every unit.
    """

    name: str
    units: int
    offset: int
    position: Position
    sites: tuple[str, ...]
    output_module: str | None
    output_axis: int
    activation: Activation | None = None
    mixed_weight: bool = False


@dataclass(frozen=True)
class Consumer:
    """A layer that reads units of another: `unit[k]` of the producer, counted from 0, feeds input `feature[k]`."""

    layer: str
    unit: Tensor
    feature: Tensor


@dataclass(frozen=True)
class UnitGraph:
    """All gated layers, and which units feed which layers.

    Attributes:
        layers: The gated layers by name, in order of execution.
        inputs: For every layer of a known type that the forward used, gated or not, the units that feed its inputs.
        heads: Names of the layers that give the model's output.
        head_parameters: Parameters that give outputs without being a layer's weight: a bare matrix, a table that is
            also multiplied by. Each task has its own copy.
        regates: Norms that are gated again, with the units of each channel. A norm maps a channel that gates made zero
            to its bias, so where a gate cannot move behind the norm, the norm's output gets a mask of its own.
        auxiliary: Those of the heads that only a forward in training mode uses.
        passed_over: Layers that a pattern matched and that got no gate, with the reason.
        unseen: Gated layers that no traced forward has used: experts that the example did not choose.
        paths: Which module ran right after which in the forwards traced in evaluation mode, each module with how often
            it had run by then.
        training_paths: The same of forwards in training mode.
    """

    layers: dict[str, UnitLayer]
    inputs: dict[str, InputMap]
    heads: tuple[str, ...] = ()
    regates: dict[str, InputMap] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()
    paths: frozenset[tuple[tuple[str, int], tuple[str, int]]] = frozenset()
    training_paths: frozenset[tuple[tuple[str, int], tuple[str, int]]] = frozenset()
    head_parameters: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()

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
                pairs = torch.stack([inputs.unit[mine] - layer.offset, inputs.feature[mine]])
                if inputs.group is not None:  # a unit may be in several sets of one feature
                    pairs = pairs.unique(dim=1)
                found.append(Consumer(reader, pairs[0], pairs[1]))
        return found
