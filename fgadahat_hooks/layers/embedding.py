"""`nn.Embedding`: weight `(rows, features)`, units are the output features, the columns of the table.

It reads indices, not features, so no gated layer comes before it: a weight depends on its own unit alone. Rows are not
units, because a gate acts on outputs.
"""

from __future__ import annotations

from typing import ClassVar, cast

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType, weight_of


@registry.layer_types.register("Embedding")
class EmbeddingType(LayerType):
    """A unit is an output feature. Not matched by `all`, under which a table keeps its values from the first task."""

    module_class: ClassVar[type[nn.Module] | str] = nn.Embedding
    unit_axis: ClassVar[int] = -1
    weight_axis: ClassVar[int] = 1
    shorthand: ClassVar[str] = "all-embedding"
    in_all: ClassVar[bool] = False

    def units(self, module: nn.Module) -> int:
        """Return the number of output features."""
        return weight_of(module).shape[1]

    def inputs(self, module: nn.Module) -> int:
        """Return 0, because it reads no features."""
        return 0

    def unit_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(features,)` to `(1, features)`."""
        return values.reshape(1, -1)

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Return zeros `(1, 1)`, because there is no input feature."""
        return values.new_zeros(1, 1)

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(rows, features)` over the rows: `(features,)`."""
        return x.sum(0)

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return `(0,)`."""
        return x.new_zeros(0)

    def refusal(self, module: nn.Module) -> str:
        """Refuse tables that a forward writes to (`max_norm`), and those with sparse gradients."""
        layer = cast("nn.Embedding", module)
        if layer.max_norm is not None:
            return "with max_norm: every forward scales whole rows anew, those that finished tasks read among them"
        return "with sparse=True: no measure reads sparse gradients" if layer.sparse else ""

    def update_sizes(self, module: nn.Module) -> None:
        """Set `embedding_dim`."""
        layer = cast("nn.Embedding", module)
        layer.embedding_dim = layer.weight.shape[1]
