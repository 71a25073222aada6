"""Whole runs of three tasks through the public library against the loops of `tests/reference/training.py`.

The loops share nothing with the library: they have a forward, a backward, optimizers and all equations of their own.
Losses and all parameters are compared at each step, masks, importances, sums, rates and capacity at each task.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import fgadahat_hooks as fh
from tests.reference.mask import anneal
from tests.reference.measures import MEASURES
from tests.reference.network import Parameters
from tests.reference.optimizers import Options
from tests.reference.training import Choices, Learner, masks_at
from tests.support.small import Batch, batches, embeddings, mlp

SIZES = (4, 6, 5, 3)
GATED = ("0", "2")
TASKS = 3
STEPS = 3

FG = [
    Choices(scheduler=scheduler, aggregation=aggregation, filtered=filtered, apply_to=apply_to)
    for scheduler, aggregation, filtered, apply_to in product(
        ("linear_sparsity_reg", "sparsity_reg", "summative_mask_sparsity_reg"),
        ("min", "max", "mean"),
        (False, True),
        ("update", "gradient"),
    )
]
OTHERS = [
    Choices(mode=mode, alpha=alpha, apply_to=apply_to)
    for (mode, alpha), apply_to in product(
        [
            ("adahat", 0.1),
            ("adahat_no_sum", 0.1),
            ("adahat_no_reg", 0.1),
            ("hat", 1.0),
            ("hat_const_alpha", 0.3),
            ("hat_const_1", 1.0),
        ],
        ("update", "gradient"),
    )
]
OPTIMIZERS = [
    Choices(optimizer=optimizer, options=options, apply_to=apply_to, mode=mode, alpha=1e-2)
    for (optimizer, options), (mode, apply_to) in product(
        [
            ("SGD", Options(0.05, weight_decay=0.1, momentum=0.9)),
            ("Adam", Options(0.01)),
            ("Adam", Options(0.01, weight_decay=0.1)),
            ("AdamW", Options(0.01, weight_decay=0.1)),
            ("RMSprop", Options(0.01)),
        ],
        [("fg_adahat", "update"), ("fg_adahat", "gradient"), ("adahat", "update"), ("hat", "update")],
    )
]
STRATEGIES: list[tuple[str, dict[str, float]]] = [
    ("add_latest", {}),
    ("add_average", {}),
    ("linear_decrease", {"step": 0.5}),
    ("quadratic_decrease", {}),
    ("cubic_decrease", {}),
    ("exponential_decrease", {"rate": 2.0}),
    ("log_decrease", {"base": 2.0}),
    ("factorial_decrease", {}),
]
SETTINGS = [
    Choices(gradient="adjusted", apply_to="gradient", measure="input_weight_gradient_abs_sum", base_importance=0),
    Choices(gradient="adjusted", apply_to="update", measure="input_weight_gradient_abs_sum"),
    Choices(every=2),
    Choices(filter_unmasked=False),
    Choices(multiply_training_mask=False),
    Choices(filter_unmasked=False, multiply_training_mask=False, base_importance=0.3),
    Choices(base_linear=0, base_mask_sparsity_reg=1e-3),
    Choices(regularization="cross", factor=2.0),
    Choices(factor=0.0),
    Choices(s_max=400.0, threshold=20.0),
    Choices(gate_lr=5.0, bound=1.5),
]


def label(choices: Choices) -> str:
    """Name a run by the choices that are not the defaults."""
    defaults = vars(Choices())
    parts = [f"{k}={v}" for k, v in vars(choices).items() if defaults[k] != v and k != "options"]
    return ",".join([*parts, f"wd={choices.options.weight_decay}"])


# ------------------------------------------------------------------ the same run in the library
def spec_of(c: Choices) -> dict[str, Any]:
    """Write the choices as a spec."""
    adjustment: dict[str, Any] = {"mode": c.mode, "apply_to": c.apply_to}
    if c.mode == "fg_adahat":
        adjustment |= {
            "intensity": c.alpha,
            "scheduler": c.scheduler,
            "aggregation": c.aggregation,
            "base_importance": c.base_importance,
            "base_linear": c.base_linear,
            "base_mask_sparsity_reg": c.base_mask_sparsity_reg,
            "filter_by_cumulative_mask": c.filtered,
        }
    if c.mode.startswith("adahat"):
        adjustment |= {"intensity": c.alpha, "epsilon": c.epsilon}
    if c.mode == "hat_const_alpha":
        adjustment["alpha"] = c.alpha
    names = {"step": "linear_step", "rate": "exponential_rate", "base": "log_base"}
    return {
        "gates": {"s_max": c.s_max, "clamp_threshold": c.threshold, "embedding_clamp": c.bound},
        "regularization": {"factor": c.factor, "mode": c.regularization},
        "importance": {
            "type": c.measure,
            "gradient": c.gradient,
            "every_n_steps": c.every,
            "filter_unmasked": c.filter_unmasked,
            "multiply_training_mask": c.multiply_training_mask,
        },
        "summation": {"strategy": c.strategy, **{names[k]: v for k, v in c.strategy_params.items()}},
        "adjustment": adjustment,
    }


class Probe(fh.Callback):
    """Keeps the context that the callbacks of a task get."""

    priority = 60
    context: fh.TaskContext
    summed: dict[str, Tensor] | None = None

    def on_task_start(self, context: fh.TaskContext) -> None:
        self.context = context

    def on_task_end(self, context: fh.TaskContext) -> None:
        self.summed = context.summed_importance


class Run:
    """A model in the library, and the same model in the loops."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.model = mlp(*SIZES)
        self.probe = Probe()
        spec = fh.AttachSpec.model_validate(spec_of(choices))
        self.adjust = fh.GradientAdjustCallback(spec.adjustment)
        callbacks: list[fh.Callback] = [self.adjust, self.probe]
        if choices.mode == "fg_adahat":
            callbacks.append(fh.ImportanceCallback(spec.importance, choices.base_importance))
            callbacks.append(fh.SummationCallback(spec.summation))
        self.session = fh.attach(self.model, spec, torch.randn(2, SIZES[0], dtype=torch.float64), callbacks)
        self.learner = Learner(choices, self.lists())

    def tensors(self) -> dict[str, Tensor]:
        """Return the live parameters by their names in the loops."""
        layers = [self.model.get_submodule(name) for name in GATED]
        head = self.model.get_submodule("4")
        found: dict[str, Tensor] = {"W": head.get_parameter("weight"), "b": head.get_parameter("bias")}
        for i, (layer, e) in enumerate(zip(layers, embeddings(self.session), strict=True)):
            found |= {f"W{i}": layer.get_parameter("weight"), f"b{i}": layer.get_parameter("bias"), f"e{i}": e}
        return found

    def lists(self) -> Parameters:
        """Return the parameters as rows of numbers."""
        return {name: as_rows(tensor) for name, tensor in self.tensors().items()}

    def optimizer(self) -> torch.optim.Optimizer:
        c, options = self.choices, {}
        if c.optimizer == "SGD":
            options["momentum"] = c.options.momentum
        groups = self.session.parameter_groups(c.options.lr, c.gate_lr, weight_decay=c.options.weight_decay)
        made: torch.optim.Optimizer = getattr(torch.optim, c.optimizer)(groups, **options)
        return made

    def step(self, task: fh.Task, optimizer: torch.optim.Optimizer, batch: Batch, number: int) -> None:
        """Train both on one batch and compare losses and all parameters."""
        x, y = batch
        scale = task.anneal(number, STEPS)
        assert scale == pytest.approx(anneal(number, STEPS, self.choices.s_max), rel=1e-14)
        optimizer.zero_grad()
        loss, regularizer = cross_entropy(self.model(x), y), task.regularization()
        (loss + regularizer).backward()
        optimizer.step()
        looped = self.learner.step(x.tolist(), y.tolist(), scale)
        assert (loss.item(), regularizer.item()) == pytest.approx(looped, rel=1e-9, abs=1e-14)
        self.compare(self.lists(), self.learner.parameters)

    def compare(self, ours: Parameters, looped: Parameters) -> None:
        """Compare matrices by name."""
        for name, expected in looped.items():
            close(torch.tensor(ours[name], dtype=torch.float64), expected)

    def compare_rates(self) -> None:
        """Compare the rates and the capacity under the masks after the last step."""
        masks = masks_at(self.learner)
        found = self.adjust.rates(self.probe.context)
        ours = {f"{'W' if k.endswith('weight') else 'b'}{GATED.index(k[0])}": as_rows(v) for k, v in found.items()}
        self.compare(ours, self.learner.rates(masks))
        assert self.session.capacity() == pytest.approx(self.learner.capacity(masks), rel=1e-9)

    def compare_end(self, task: int) -> None:
        """Compare the mask, the importance and the sum of a finished task."""
        for i, name in enumerate(GATED):
            assert self.session.masks(task)[name].tolist() == [bool(m) for m in self.learner.masks[-1][i]]
            if self.choices.mode == "fg_adahat":
                close(self.session.importance(task)[name], self.learner.importances[-1][i])
                assert self.probe.summed is not None
                close(self.probe.summed[name], self.learner.summed[i])

    def compare_all(self, tasks: int = TASKS) -> None:
        """Learn all tasks in both and compare."""
        for number in range(1, tasks + 1):
            with self.session.task(number) as task:
                fresh = {k: v for k, v in self.lists().items() if k[0] == "e" or k in ("W", "b")}
                self.learner.begin(fresh)
                optimizer = task.protect(self.optimizer())
                for step, batch in enumerate(batches(SIZES[0], SIZES[-1], STEPS), start=1):
                    self.step(task, optimizer, batch, step)
                self.compare_rates()
            self.learner.end()
            self.compare_end(number)


def as_rows(tensor: Tensor) -> list[list[float]]:
    """Return a matrix as rows, a vector as one row."""
    rows: list[list[float]] = (tensor if tensor.dim() > 1 else tensor.unsqueeze(0)).tolist()
    return rows


def close(ours: Tensor, looped: Any) -> None:
    """Compare to 1e-9, nine steps after the start."""
    torch.testing.assert_close(ours.double(), torch.tensor(looped, dtype=torch.float64), rtol=1e-9, atol=1e-13)


# ------------------------------------------------------------------ the runs
@pytest.mark.parametrize("choices", [*FG, *OTHERS], ids=label)
def test_every_mode_equals_loops(choices: Choices) -> None:
    Run(choices).compare_all()


@pytest.mark.parametrize("choices", OPTIMIZERS, ids=label)
def test_every_optimizer_equals_loops(choices: Choices) -> None:
    Run(choices).compare_all()


@pytest.mark.parametrize("choices", SETTINGS, ids=label)
def test_every_setting_equals_loops(choices: Choices) -> None:
    Run(choices).compare_all()


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_every_closed_measure_equals_loops(measure: str) -> None:
    Run(Choices(measure=measure)).compare_all()


@pytest.mark.parametrize(("strategy", "params"), STRATEGIES)
def test_every_strategy_equals_loops(strategy: str, params: dict[str, float]) -> None:
    Run(Choices(strategy=strategy, strategy_params=params)).compare_all()


def test_every_choice_matters() -> None:
    """No two runs are equal by chance: each single choice changes the weights, except two that must not.

    Under plain SGD the update is the gradient times a number, so it does not matter which of them is scaled. With
    `min` the filter by the cumulative mask removes nothing, as importance is 0 outside it already.
    """
    plain = Choices()
    single = [replace(plain, **{k: vars(c)[k]}) for c in [*FG, *SETTINGS] for k in vars(plain) if k != "options"]
    runs = {label(c): c for c in single if c not in (plain, replace(plain, gradient="adjusted"))}
    first = final(plain)
    same = {name for name, c in runs.items() if equal(final(c), first)}
    assert same == {"apply_to=gradient,wd=0.0", "filtered=True,wd=0.0"}


def final(choices: Choices) -> Parameters:
    """Return the parameters at the end of the run of one seed."""
    torch.manual_seed(0)
    run = Run(choices)
    run.compare_all()
    return run.learner.parameters


def equal(a: Parameters, b: Parameters) -> bool:
    """Tell whether all numbers are the same to 1e-12."""
    return all(torch.allclose(torch.tensor(a[k]), torch.tensor(b[k]), rtol=1e-12, atol=0) for k in a)
