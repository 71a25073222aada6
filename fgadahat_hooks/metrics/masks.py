"""Metrics of the units that finished tasks use, and of those that they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.metrics.functional.masks import cumulative_mask_use, free_unit_fraction, mask_overlap, mask_use
from fgadahat_hooks.metrics.heat_map import as_square, heat_map
from fgadahat_hooks.metrics.plotted import PlottedMetric
from fgadahat_hooks.session.session import Session

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Masks = Mapping[Hashable, Mapping[str, Tensor]]
"""Binary masks, `(units,)` each, by task in the order of learning and by layer."""


class MaskMetric(PlottedMetric):
    """A metric of the masks of all finished tasks; subclasses implement `of_masks`.

    Each `update` replaces the masks of the one before. Units of all layers have the same weight. In a
    `MetricCollection` these metrics share one compute group. With a single task the result is a scalar, because
    torchmetrics squeezes results with one element.
    """

    higher_is_better: bool | None = None
    full_state_update = True
    plot_legend_name: str | None = "Task"

    masks: Tensor

    def __init__(self, **kwargs: Any) -> None:
        """Start without tasks.

        Args:
            **kwargs: Options of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        # Every process has the same masks, so the maximum is the common value.
        self.add_state("masks", torch.zeros(0, 0, dtype=torch.uint8), dist_reduce_fx="max")

    def update(self, source: Session | Masks) -> None:
        """Read the masks of the finished tasks.

        Args:
            source: A session; or masks by task and layer, as `{task: session.masks(task) for task in session.tasks}`.
                A running task is left out.

        Raises:
            BadCallError: `source` is neither, or two tasks have masks of different layers or units.
            NoTaskError: The model of the session has not been traced yet.
        """
        if isinstance(source, Session):
            units = {name: len(mask) for name, mask in source.cumulative_mask.items()}
            source = {task: source.masks(task) for task in source.tasks}
        else:
            units = validated_layer_sizes(source)
        rows = [torch.cat([(masks[name] != 0).cpu() for name in units]) for masks in source.values()]
        found = torch.stack(rows) if rows else torch.zeros(0, sum(units.values()))
        self.masks = found.to(device=self.masks.device, dtype=torch.uint8)

    def compute(self) -> Tensor:
        """Return the metric in the dtype set by `set_dtype`; NaN where it is not defined."""
        return self.of_masks(self.masks).to(self.dtype)

    @abstractmethod
    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the metric of 0/1 masks, `(tasks, units)`, with the units of all layers concatenated."""


class FreeUnitFraction(MaskMetric):
    """Fraction of the gated units that no finished task uses; 1 before the first task ends.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better: bool | None = True

    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the mean over units of being free."""
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
        """Return the mean of the union of the masks so far."""
        return cumulative_mask_use(masks)


class MaskOverlap(MaskMetric):
    """Fraction of task t's units that task tau uses too, `(tasks, tasks)` (Serrà et al. 2018, HAT, Fig. 6).

    `sum_i m^t_i m^tau_i / sum_i m^t_i` in row t and column tau. 1 on the diagonal, not symmetric; NaN in the row of a
    task that uses no unit.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def of_masks(self, masks: Tensor) -> Tensor:
        """Return the fractions of each task's units that are shared."""
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
            val: A value of `compute` or `forward`, or a list of them, of which the last is drawn; `compute()` if None.
            ax: Axes to draw on; a new figure if None.
            labels: One label a task, such as `session.tasks`; numbers from 1 if None.
            add_text: Write the fractions into the cells.

        Returns:
            The new figure, None if `ax` was given, and the axes.

        Raises:
            BadCallError: There is not one label a task.
            MissingDependencyError: matplotlib is not installed.
        """
        matrix = as_square(self.compute() if val is None else val)
        names = range(1, len(matrix) + 1) if labels is None else labels
        if len(names) != len(matrix):
            raise BadCallError(f"Expected one label for each of {len(matrix)} tasks, but got {len(names)}.")
        return heat_map(matrix, ax, names, "of the units of", "used by", add_text)


def validated_layer_sizes(masks: Masks) -> dict[str, int]:
    """Return the number of units of each layer, empty without a task.

    Raises:
        BadCallError: They are not masks by task and layer, or tasks have different layers or units.
    """
    if not isinstance(masks, Mapping) or not all(map(_are_layer_masks, masks.values())):
        raise BadCallError(
            f"Expected a session, or masks, (units,) each, by task and layer, but got {type(masks).__name__}. "
            "Pass `{task: session.masks(task) for task in session.tasks}`."
        )
    units = {task: {name: len(mask) for name, mask in layers.items()} for task, layers in masks.items()}
    first = next(iter(units.values()), {})
    if any(sizes != first for sizes in units.values()) or (units and not first):
        raise BadCallError(f"Expected the masks of all tasks to be of the same layers and units, but got {units}.")
    return first


def _are_layer_masks(layers: object) -> bool:
    return isinstance(layers, Mapping) and all(isinstance(mask, Tensor) and mask.ndim == 1 for mask in layers.values())
