"""The attribute `num_classes` of a head's parent, which says how many classes there are: that of a detector, say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

_NAME = "num_classes"


@dataclass(frozen=True)
class ClassCount:
    """An attribute that follows the outputs of a head.

    Attributes:
        parent: Name of the module that has it.
        outputs_per_class: Outputs of the head for each class: the number of anchors, say.
    """

    parent: str
    outputs_per_class: int

    def follow(self, model: nn.Module, outputs: int) -> None:
        """Set the attribute for a head with this many outputs."""
        setattr(model.get_submodule(self.parent), _NAME, outputs // self.outputs_per_class)


def find_class_counts(model: nn.Module, outputs: Mapping[str, int]) -> dict[str, ClassCount]:
    """Return, by head, the attribute of its parent that counts its classes.

    Args:
        model: The model.
        outputs: Number of outputs of each head. One with several outputs a class counts only beside others, that do
            not count classes: boxes.
    """
    found = {name: count for name, number in outputs.items() for count in _of_parent(model, name, number)}
    return {n: c for n, c in found.items() if c.outputs_per_class == 1 or len(outputs) > 1}


def _of_parent(model: nn.Module, head: str, outputs: int) -> Iterator[ClassCount]:
    parent = head.rpartition(".")[0]
    number = vars(model.get_submodule(parent)).get(_NAME)
    if isinstance(number, int) and not isinstance(number, bool) and number > 0 and outputs % number == 0:
        yield ClassCount(parent, outputs // number)
