"""What a traced forward showed of one layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn

from fgadahat_hooks.graph.unit_graph import Activation
from fgadahat_hooks.layers import LayerType


@dataclass
class LayerRecord:
    """What the forward showed of one layer of a known type.

    Unit `i` has two atoms, `raw_atom + i` for the layer's own output and `normed_atom + i` for the output of a norm
    behind it; which of them the gate makes zero is known only at the end.

    Attributes:
        name: Dotted module name.
        module: The layer.
        kind: Its layer type.
        raw_atom: Atom of the first unit of its own output.
        is_target: Whether it may get a gate.
        inputs: Labels of its input features, `(features,)`; None until its weight is used.
        functional_users: Names of the modules that use its weight or bias without calling it.
        called: Whether it ran as a module.
        mixed_weight: Whether its weight was used in a way that mixes rows or columns.
        unsupported_output: Why no gate can act on its output; empty if one can.
        norms: BatchNorms on its units, with the axis that counts them.
        raw_output_read: Whether anything but these norms reads its output.
        readers: What reads the output of the layer (`raw`) and of its norms (`normed`): an element-wise function, or
            None for anything else.
        output_axes: Other modules whose output shows its units, with the axis that counts them.
    """

    name: str
    module: nn.Module
    kind: LayerType
    raw_atom: int
    is_target: bool
    inputs: Tensor | None = None
    functional_users: list[str] = field(default_factory=list)
    called: bool = False
    mixed_weight: bool = False
    unsupported_output: str = ""
    norms: dict[str, int] = field(default_factory=dict)
    raw_output_read: bool = False
    readers: dict[str, list[Activation | None]] = field(default_factory=lambda: {"raw": [], "normed": []})
    output_axes: dict[str, int] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """Its weight."""
        return self.module.get_parameter("weight")

    @cached_property
    def units(self) -> int:
        """Number of units."""
        return self.kind.units(self.module)

    @property
    def normed_atom(self) -> int:
        """Atom of the first unit behind a norm."""
        return self.raw_atom + self.units

    @property
    def reached(self) -> bool:
        """Whether a gate on it would act in the forward."""
        return (self.called or bool(self.functional_users)) and not self.unsupported_output
