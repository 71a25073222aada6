"""Metrics of how much of the network the finished tasks use, and how much of it together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.metrics.functional.masks import cumulative_mask_use, free_unit_fraction, mask_overlap, mask_use
from fgadahat_hooks.metrics.heat_map import heat_map, square
from fgadahat_hooks.metrics.plotted import PlottedMetric
from fgadahat_hooks.session.session import Session

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Masks = Mapping[Hashable, Mapping[str, Tensor]]
"""Binary masks, `(units,)` each, by task in the order of learning and by layer."""


class MaskMetric(PlottedMetric):
    """A number read from the masks of all finished tasks; a subclass says which in `of_masks`.

    A call of `update` replaces what the one before it saw. All units count alike, whatever layer they are in. In a
    `MetricCollection` they share one compute group. Of a single task torchmetrics makes a scalar, as of any result with
    one element.
    """

    higher_is_better: bool | None = None
    full_state_update = True
    plot_legend_name: str | None = "Task"

    masks: Tensor

    def __init__(self, **kwargs: Any) -> None:
        """Begin without tasks.

        Args:
            **kwargs: Options of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        # Every process has the same masks, so that the largest is each of them.
        self.add_state("masks", torch.zeros(0, 0, dtype=torch.uint8), dist_reduce_fx="max")

    def update(self, source: Session | Masks) -> None:
        """Look at the finished tasks.

        Args:
            source: A session; or masks by task and layer, as `{task: session.masks(task) for task in session.tasks}`.
                A running task is not among them.

        Raises:
            BadCallError: It is neither, or the masks of two tasks are not of the same layers and units.
            NoTaskError: The model of the session has not been traced yet.
        """
        if isinstance(source, Session):
            units = {name: len(mask) for name, mask in source.cumulative_mask.items()}
            source = {task: source.masks(task) for task in source.tasks}
        else:
            units = checked_units(source)
        rows = [torch.cat([(masks[name] != 0).cpu() for name in units]) for masks in source.values()]
        found = torch.stack(rows) if rows else torch.zeros(0, sum(units.values()))
        self.masks = found.to(device=self.masks.device, dtype=torch.uint8)

    def compute(self) -> Tensor:
        """Return the metric, in the type that `set_dtype` asks for; NaN where it is not defined."""
        return self.of_masks(self.masks).to(self.dtype)

    @abstractmethod
    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the metric of 0/1 masks, `(tasks, units)`, the units of all layers joined."""


class FreeUnitFraction(MaskMetric):
    """Fraction of the gated units that no finished task uses: the room that is left; 1 before the first task ends.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better: bool | None = True

    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the mean of the units that are free."""
        return free_unit_fraction(masks)


class MaskUse(MaskMetric):
    """Fraction of the gated units that each finished task uses, `(tasks,)` in the order of learning.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from fgadahat_hooks.metrics import MaskUse
        >>> metric = MaskUse()
        >>> metric.update({"birds": {"fc": torch.tensor([1, 1, 0, 0])}, "cars": {"fc": torch.tensor([0, 1, 1, 1])}})
        >>> metric.compute()
        tensor([0.5000, 0.7500])
    """

    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the mean of each mask."""
        return mask_use(masks)


class CumulativeMaskUse(MaskMetric):
    """Fraction of the gated units that the first t finished tasks use, `(tasks,)` (Serrà et al. 2018, HAT, Fig. 5).

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the mean of the union so far."""
        return cumulative_mask_use(masks)


class MaskOverlap(MaskMetric):
    """Fraction of task t's units that task tau uses too, `(tasks, tasks)` (Serrà et al. 2018, HAT, Fig. 6).

    `sum_i m^t_i m^tau_i / sum_i m^t_i` in row t and column tau. 1 on the diagonal, not symmetric; NaN in the row of a
    task that uses no unit.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the shared part of each task's units."""
        return mask_overlap(masks)

    def plot(
        self,
        val: Tensor | Sequence[Tensor] | None = None,
        ax: Axes | None = None,
        labels: Sequence[Hashable] | None = None,
        add_text: bool = True,
    ) -> tuple[Figure | None, Axes]:
        """Draw a heat map.

        Args:
            val: What `compute` or `forward` returned, or a list of such values, whose last is drawn; what `compute`
                returns when left out.
            ax: Where to draw; a new figure when left out.
            labels: One a task, such as `session.tasks`; their numbers, from 1, when left out.
            add_text: Write the fractions into the cells.

        Returns:
            The new figure, if there is one, and the axes.

        Raises:
            BadCallError: There is another number of labels than of tasks.
            MissingDependencyError: matplotlib is not installed.
        """
        matrix = square(self.compute() if val is None else val)
        names = range(1, len(matrix) + 1) if labels is None else labels
        if len(names) != len(matrix):
            raise BadCallError(f"Expected one label for each of {len(matrix)} tasks, but got {len(names)}.")
        return heat_map(matrix, ax, names, "of the units of", "used by", add_text)


def checked_units(masks: Masks) -> dict[str, int]:
    """Return how many units each layer has, nothing without a task.

    Raises:
        BadCallError: They are no masks by task and layer, or of different layers or units.
    """
    tensors = isinstance(masks, Mapping) and all(
        isinstance(layers, Mapping) and all(isinstance(mask, Tensor) and mask.ndim == 1 for mask in layers.values())
        for layers in masks.values()
    )
    if not tensors:
        raise BadCallError(
            f"Expected a session, or masks, (units,) each, by task and layer, but got {type(masks).__name__}. "
            "Pass `{task: session.masks(task) for task in session.tasks}`."
        )
    units = {task: {name: len(mask) for name, mask in layers.items()} for task, layers in masks.items()}
    first = next(iter(units.values()), {})
    if any(found != first for found in units.values()) or (units and not first):
        raise BadCallError(f"Expected the masks of all tasks to be of the same layers and units, but got {units}.")
    return first
