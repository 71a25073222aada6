"""The table of models written by hand, and what several of them have in common."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from tests.zoo.sweep.subject import Inputs, normal

MAP, LINE = normal(3, 8, 8), normal(5, 8)
ODD: dict[str, tuple[type[nn.Module], Inputs, Mapping[str, Any]]] = {}


def odd(inputs: Inputs, **spec: Any) -> partial[Any]:
    """Add a class to the table."""
    return partial(_add, inputs, spec)


def _add(inputs: Inputs, spec: Mapping[str, Any], cls: type[nn.Module]) -> type[nn.Module]:
    ODD[cls.__name__] = (cls, inputs, spec)
    return cls


class Net(nn.Module):
    """A convolution in front, a Linear head behind; subclasses say what is between."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(self.width, 4)

    def forward(self, x: Tensor) -> Any:
        out: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return out

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError
