"""Learning rates by share: each layer's, for the length of a step, whoever built the optimizer or sets its rate."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch.optim import SGD, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam

from fgadahat_hooks.errors import LearningWarning
from fgadahat_hooks.functional.plasticity import (
    GRADIENT_GAIN_FACTOR,
    gradient_learning_rate_factor,
    head_learning_rate_factor,
    learning_rate_factor,
    stable_gradient_factor,
)
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.open_shares import OpenShares, open_inputs, open_shares
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.protection.split_groups import Parts, SplitGroups

ADAM_LIKE = (Adam, AdamW, Adamax, NAdam, RAdam)
"""Optimizers whose step is about the learning rate an entry, whatever the gradient's size."""


class LearningRates:
    """Splits an optimizer's groups by layer before each step, and restores them after it.

    Schedulers, checkpoints and the user see the groups that they made; the state of each parameter stays where it is.
    """

    def __init__(self, attached: AttachedModel, state: TaskState) -> None:
        """Take the shares of the task that begins now.

        Args:
            attached: The model; its gates have the masks that the task begins with.
            state: The tasks that are finished.
        """
        self._spec = attached.spec.plasticity
        self._shares = _by_parameter(attached, open_shares(attached, state))
        self._stds = _weight_stds(attached)
        self._heads = _head_inputs(attached)
        self._own_factors = _own_factors(attached)
        self._warned: set[str] = set()
        self._known: dict[int, tuple[_Rate, list[int], Parts]] = {}
        self._split: weakref.WeakKeyDictionary[Optimizer, SplitGroups] = weakref.WeakKeyDictionary()

    def enter(self, optimizer: Optimizer) -> None:
        """Split the groups for a step that begins."""
        self.leave(optimizer)  # a step before this one may have raised
        if not isinstance(optimizer, (*ADAM_LIKE, SGD)):
            self._warn_once(
                f"{type(optimizer).__name__} keeps its learning rates: plasticity.learning_rates 'by_share' acts on "
                "Adam, AdamW, Adamax, NAdam, RAdam and SGD alone. Use one of them, or set it to 'as_given'."
            )
        else:
            parts = [self._parts(group["params"], _Rate.of(group, type(optimizer))) for group in optimizer.param_groups]
            self._split[optimizer] = SplitGroups(optimizer, parts)

    def outside(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return a step's closure that runs with the groups as they were made, so that what it sets in them counts."""

        def run() -> Any:
            self.leave(optimizer)
            result = closure()
            self.enter(optimizer)
            return result

        return run

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, LearningWarning, stacklevel=3)

    def close(self) -> None:
        """Restore the groups of all optimizers: a step may have raised."""
        for optimizer in list(self._split):
            self.leave(optimizer)

    def leave(self, optimizer: Optimizer) -> None:
        """Restore the groups, with what the step wrote into them."""
        split = self._split.pop(optimizer, None)
        if split is None:
            return
        split.restore(optimizer)
        if split.sets_rates:
            self._warn_once(
                f"{type(optimizer).__name__} sets its learning rate within step(), so plasticity.learning_rates "
                "'by_share' does not act. Set it before step(), for example by a scheduler, or use 'as_given'."
            )

    def _parts(self, parameters: list[Any], rate: _Rate) -> Parts:
        """Return the parameters of a group by their factor; kept from step to step while they and the rate stay."""
        key, ids = id(parameters), [id(parameter) for parameter in parameters]
        known = self._known.get(key)
        if known is None or known[:2] != (rate, ids):
            parts: Parts = {}
            for parameter in parameters:
                parts.setdefault(self._factor(id(parameter), rate), []).append(parameter)
            known = self._known[key] = (rate, ids, parts)
        return known[2]

    def _factor(self, parameter: int, rate: _Rate) -> float:
        """Return by how much the learning rate of a parameter, given by its `id`, is multiplied."""
        spec = self._spec
        if rate.lr <= 0:
            return 1.0
        if parameter in self._heads:
            factor = head_learning_rate_factor(self._heads[parameter], spec.max_factor)
            return factor if rate.momentum is None else min(factor, stable_gradient_factor(rate.lr, rate.momentum))
        if parameter in self._own_factors:
            return self._own_factors[parameter][rate.momentum is not None]
        if parameter not in self._shares:
            return 1.0
        shares = self._shares[parameter]
        if rate.momentum is not None:
            return gradient_learning_rate_factor(rate.lr, *shares, spec.max_factor, rate.momentum)
        return learning_rate_factor(rate.lr, *shares, self._stds[parameter], spec.max_factor, spec.max_step)


class _Rate(NamedTuple):
    """A group's learning rate, and its momentum if its steps are in proportion to the gradient, as those of SGD."""

    lr: float
    momentum: float | None

    @classmethod
    def of(cls, group: dict[str, Any], kind: type[Optimizer]) -> _Rate:
        return cls(float(group["lr"]), float(group.get("momentum", 0.0)) if issubclass(kind, SGD) else None)


def _by_parameter(attached: AttachedModel, shares: Mapping[str, OpenShares]) -> dict[int, OpenShares]:
    found = {}
    for name, layer in attached.layers().items():
        for parameter in (layer.weight, layer.bias):
            if parameter is not None:
                found[id(parameter)] = shares[name]
    return found


def _weight_stds(attached: AttachedModel) -> dict[int, float]:
    """Return the root mean square of each layer's weights before the first task, for its weight and its bias."""
    found: dict[int, float] = {}
    for name, layer in attached.layers().items():
        norms = attached.row_norms[name].double()
        std = float((norms.square().sum() / max(layer.weight.numel(), 1)).sqrt())
        found |= {id(parameter): std for parameter in (layer.weight, layer.bias) if parameter is not None}
    return found


def _own_factors(attached: AttachedModel) -> dict[int, tuple[float, float]]:
    """Return the factors, with Adam's kin and with SGD, of a task's gains and biases, and of its norms."""
    spec = attached.spec.plasticity
    factors = {"gain": (spec.gain_factor, GRADIENT_GAIN_FACTOR), "norm": (spec.norm_factor, 1.0)}
    own = [p for p in attached.policies if p.role in factors and p.protection == "per_task" and p.kind == "parameter"]
    return {id(attached.tensors.tensor(p.name)): factors[p.role] for p in own}


def _head_inputs(attached: AttachedModel) -> dict[int, float]:
    masks = {name: gate.hard_mask().cpu() for name, gate in attached.gates.items()}
    found: dict[int, float] = {}
    for name, share in open_inputs(attached.graph, masks, attached.graph.heads).items():
        module = attached.model.get_submodule(name)
        found |= {id(p): share for p in module.parameters() if id(p) not in attached.tied}
    return found
