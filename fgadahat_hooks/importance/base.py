"""What a measure is, what it sees, and how one is added."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.layers.base import LayerType


@dataclass(frozen=True, eq=False)
class ConsumerView:
    """One layer that reads units of the measured layer, as it is in this step.

    Attributes:
        name: Dotted name of the consumer.
        module: The consumer.
        kind: Its layer type.
        weight: Its weight before the optimizer's step.
        weight_grad: Gradient of that weight, if there is one.
        unit: Units of the measured layer, `(n,)` integers; a unit may occur several times or never.
        feature: Input feature of the consumer that the unit beside it reaches, `(n,)` integers.
    """

    name: str
    module: nn.Module
    kind: LayerType
    weight: Tensor
    weight_grad: Tensor | None
    unit: Tensor
    feature: Tensor


@dataclass(frozen=True, eq=False)
class LayerView:
    """One gated layer, as it is in this step; all parts belong to the same forward and backward.

    Attributes:
        name: Dotted name of the layer.
        module: The layer.
        kind: Its layer type.
        units: Number of its units.
        weight: Its weight before the optimizer's step.
        weight_grad: Gradient of that weight, if there is one.
        activation: Mean over batch and positions of `|h|`, `(units,)`, `h` after norm, gate and activation function.
        consumers: All layers that read its units, the current head included.
    """

    name: str
    module: nn.Module
    kind: LayerType
    units: int
    weight: Tensor
    weight_grad: Tensor | None = None
    activation: Tensor | None = None
    consumers: tuple[ConsumerView, ...] = ()


class Measure(ABC):
    """An importance measure.

    Attributes:
        name: Name in the registry, set by `register_measure`.
        needs: What must be in the view: any of `weight`, `gradient`, `activation`, `consumers`.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **params: Any) -> None:
        """Refuse every parameter; a measure that has some overrides this.

        Raises:
            BadCallError: If a parameter is given.
        """
        if params:
            name = self.name or type(self).__name__
            raise BadCallError(f"Measure {name!r} takes no parameters, but got {sorted(params)}. Remove them.")

    @abstractmethod
    def compute(self, view: LayerView) -> Tensor:
        """Return the raw importance of each unit, `(units,)`, >= 0, detached, on the device of the weight."""


M = TypeVar("M", bound=type[Measure])


def register_measure(name: str, *, force: bool = False) -> Callable[[M], M]:
    """Return a class decorator that adds a measure under `name`, for use in a spec's `importance.type`.

    Args:
        name: Its name.
        force: Whether it may replace a measure of that name.

    Raises:
        BadCallError: If what is decorated is no concrete subclass of `Measure`.
        DuplicateNameError: If the name is taken and `force` is not set.
    """

    def decorate(cls: M) -> M:
        _check(name, cls)
        registry.measures.register(name, force=force)(cls)
        cls.name = name
        return cls

    return decorate


def _check(name: str, cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Measure)):
        raise BadCallError(f"Expected measure {name!r} to be a subclass of `Measure`, but got {cls!r}.")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise BadCallError(f"Expected measure {name!r} to define {', '.join(missing)}, but {cls.__name__} does not.")
