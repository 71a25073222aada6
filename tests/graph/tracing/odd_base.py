"""What the odd models have in common, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

VECTOR = (2, 4)
IMAGE = (2, 3, 8, 8)
TOKENS = (2, 5, 8)
MODELS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {}


def odd(shape: tuple[int, ...]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    def add(cls: type[nn.Module]) -> type[nn.Module]:
        MODELS[cls.__name__] = (cls, shape)
        return cls

    return add


class Vector(nn.Module):
    """Two layers of 8 units and a head; subclasses connect them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 8)
        self.b = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def end(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x)
        return out


class Image(nn.Module):
    """Two convolutions of 8 channels and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def end(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.mean((2, 3)))
        return out
