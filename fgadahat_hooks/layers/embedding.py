"""`nn.Embedding`: weight `(numbers, features)`, units are its output features, the columns of the table.

It reads numbers, not features, so no gated layer comes before it: each weight takes the value of its own unit alone.
Rows are no units, because a gate acts on outputs.
"""

from __future__ import annotations

from typing import ClassVar, cast

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType


@registry.layer_types.register("Embedding")
class EmbeddingType(LayerType):
    """A unit is an output feature. Not among `all`: there a table stays as the first task leaves it."""

    module_class: ClassVar[type[nn.Module] | str] = nn.Embedding
    unit_axis: ClassVar[int] = -1
    weight_axis: ClassVar[int] = 1
    shorthand: ClassVar[str] = "all-embedding"
    in_all: ClassVar[bool] = False

    def units(self, module: nn.Module) -> int:
        """Return the number of output features."""
        return module.get_parameter("weight").shape[1]

    def inputs(self, module: nn.Module) -> int:
        """Return 0: it reads no features."""
        return 0

    def own_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(features,)` to `(1, features)`."""
        return values.reshape(1, -1)

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Return zeros `(1, 1)`, the value of no feature at all."""
        return values.new_zeros(1, 1)

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(numbers, features)` over the numbers: `(features,)`."""
        return x.sum(0)

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return `(0,)`."""
        return x.new_zeros(0)

    def refusal(self, module: nn.Module) -> str:
        """Refuse tables that a forward writes into, and those with sparse gradients."""
        layer = cast("nn.Embedding", module)
        if layer.max_norm is not None:
            return "with max_norm: every forward scales whole rows anew, those that finished tasks read among them"
        return "with sparse=True: no measure reads sparse gradients" if layer.sparse else ""

    def tell_sizes(self, module: nn.Module) -> None:
        """Set `embedding_dim`."""
        layer = cast("nn.Embedding", module)
        layer.embedding_dim = layer.weight.shape[1]
