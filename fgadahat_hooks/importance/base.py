"""The base classes of measures, the views they are given, and their registration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.layers.base import LayerType


@dataclass(frozen=True, eq=False)
class ConsumerView:
    """One layer that reads units of the measured layer, in the state of this step.

    Attributes:
        name: Dotted name of the consumer.
        module: The consumer.
        kind: Its layer type.
        weight: Its weight before the optimizer's step.
        weight_grad: Gradient of that weight, if there is one.
        unit: Units of the measured layer, `(n,)` integers; a unit may occur several times or never.
        feature: Input feature of the consumer that the unit at the same index reaches, `(n,)` integers.
        sums: Sums by input feature that were already computed in this step, by term: most consumers on a residual
            stream read several layers, and each of these needs the same sum.
    """

    name: str
    module: nn.Module
    kind: LayerType
    weight: Tensor
    weight_grad: Tensor | None
    unit: Tensor
    feature: Tensor
    sums: dict[Callable[..., Tensor], Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LayerView:
    """One gated layer, in the state of this step; all parts belong to the same forward and backward.

    Attributes:
        name: Dotted name of the layer.
        module: The layer.
        kind: Its layer type.
        units: Number of its units.
        weight: Its weight before the optimizer's step.
        weight_grad: Gradient of that weight, if there is one.
        activation: Mean over batch and positions of `|h|`, `(units,)`, `h` after norm, gate and activation function;
            of `|h - c|` for a measure with a `centre`.
        signed_activation: Mean of `h` itself, for a measure that needs it.
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
    signed_activation: Tensor | None = None


class BaseMeasure:
    """What all importance measures share.

    Attributes:
        name: Name in the registry, set by `register_measure`.
        needs: What it reads: any of `weight`, `gradient`, `activation`, `signed_activation`, `consumers`, `model`.
        cost: Passes through the model for all layers, for the documentation.
        forgot: Points of accuracy that a run of five tasks of digits forgot at most with the preset `fg_adahat`, if
            that is more than 2; else 0. The page of measures has the runs.
    """

    name: ClassVar[str] = ""
    cost: ClassVar[str] = "no pass of its own"
    needs: ClassVar[frozenset[str]] = frozenset()
    forgot: ClassVar[float] = 0.0

    def __init__(self, **params: Any) -> None:
        """Refuse every parameter; a measure with parameters overrides this.

        Raises:
            BadCallError: If a parameter is given.
        """
        if params:
            name = self.name or type(self).__name__
            raise BadCallError(f"Measure {name!r} takes no parameters, but got {sorted(params)}. Remove them.")

    def state_dict(self) -> dict[str, Any]:
        """Return what a measure keeps from step to step: tensors and numbers by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Measure(BaseMeasure, ABC):
    """A measure that looks at one layer of one step; `AttributionMeasure` is the kind that runs the model again."""

    def centre(self, layer: str) -> Tensor | None:
        """Return the `c` that is subtracted from a layer's activations, `(units,)`; None for 0."""
        return None

    @abstractmethod
    def compute(self, view: LayerView) -> Tensor:
        """Return the raw importance of each unit, `(units,)`, >= 0, detached, on the device of the weight."""


M = TypeVar("M", bound=type[BaseMeasure])


def register_measure(name: str, *, force: bool = False) -> Callable[[M], M]:
    """Return a class decorator that adds a measure under `name`, for use in a spec's `importance.type`.

    Args:
        name: Its name.
        force: Whether it may replace a measure of that name.

    Raises:
        BadCallError: If the decorated object is no concrete subclass of `Measure` or `AttributionMeasure`.
        DuplicateNameError: If the name is taken and `force` is not set.
    """

    def decorate(cls: M) -> M:
        _check(name, cls)
        registry.measures.register(name, force=force)(cls)
        cls.name = name
        return cls

    return decorate


def _check(name: str, cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, BaseMeasure)):
        raise BadCallError(f"Expected measure {name!r} to be a subclass of `Measure`, but got {cls!r}.")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise BadCallError(f"Expected measure {name!r} to define {', '.join(missing)}, but {cls.__name__} does not.")
