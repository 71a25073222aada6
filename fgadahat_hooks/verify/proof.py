"""The whole proof: noise first, then scratch tasks if an optimizer is given."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from fgadahat_hooks.errors import BadCallError, LeakError, LearningWarning
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.progress import progress
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.noise import overwrite_free
from fgadahat_hooks.verify.report import VerifyReport
from fgadahat_hooks.verify.scratch import scratch_copy
from fgadahat_hooks.verify.steps import Around
from fgadahat_hooks.verify.training import TrainingResult, learn_scratch_tasks

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


def verify(
    sequence: TaskSequence,
    inputs: Any = None,
    by_choice: tuple[str, ...] = (),
    optimizer: MakeOptimizer | None = None,
    steps: int = 5,
    around: Around | None = None,
) -> VerifyReport:
    """Run the proof on copies; see `Session.verify`.

    Args:
        sequence: The attached model, with finished tasks.
        inputs: Inputs for the model; the example inputs of the trace when left out.
        by_choice: Settings by which finished tasks can change according to the plan, for the report.
        optimizer: Makes an optimizer from parameter groups; with None no scratch tasks are learnt.
        steps: Steps in each of the two scratch tasks.
        around: Makes each step in place of the plain one.

    Raises:
        LeakError: Some finished task's logits changed, or a protected element moved.
    """
    _validate(optimizer, steps, around)
    inputs = sequence.attached.example_inputs if inputs is None else inputs
    if inputs is None:
        raise BadCallError("Expected `inputs`: the model was attached without example inputs.")
    with torch.inference_mode(False):
        with sequence.exclusive():
            scratch = scratch_copy(sequence)
        count = len(scratch.state.records) * 2
        with progress("verifying", count if optimizer is None else 2 * count + 2) as bar:
            report = replace(overwrite_free(scratch, inputs, bar), by_choice=by_choice, notes=_notes(sequence))
            if report.leaks:
                raise LeakError(f"{report}\nPolicies: {_shared_policies(sequence, report)}")
            if optimizer is None:
                return report
            learning = partial(learn_scratch_tasks, sequence, inputs, optimizer, steps, bar, around)
            return _add_training(sequence, report, learning)


def _notes(sequence: TaskSequence) -> tuple[tuple[TaskId, str], ...]:
    return tuple((task, note) for task, record in sequence.state.records.items() for note in record.notes)


def _validate(optimizer: Any, steps: Any, around: Any) -> None:
    if around is not None and (optimizer is None or not callable(around)):
        raise BadCallError(
            f"Expected `around` to be a function of one step, beside an `optimizer`, but got {around!r:.60}. Write "
            "your own step: session.verify(optimizer=..., around=lambda step: (step(), average.update(step.model)))."
        )
    if isinstance(optimizer, Optimizer) or (optimizer is not None and not callable(optimizer)):
        raise BadCallError(
            "Expected `optimizer` to make an optimizer of parameter groups, but got an object of class "
            f"{type(optimizer).__name__}. Pass the class or a function: "
            "session.verify(optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1))."
        )
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise BadCallError(f"Expected `steps` to be a whole number of at least 1, but got {steps!r}.")


def _add_training(sequence: TaskSequence, report: VerifyReport, learn: Callable[[], TrainingResult]) -> VerifyReport:
    """Learn scratch tasks, and add their result to the report.

    Raises:
        LeakError: They changed a finished task, or moved a protected element.
        OptimizerError: The optimizer was refused, and moved no protected element.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LearningWarning)  # the scratch tasks learn random targets
        leaks, training, refused = learn()
    policies = {p.name: f"{p.protection} ({p.reason})" for p in sequence.attached.policies if p.name in leaks}
    report = replace(report, leaks=leaks, training=training, policies=policies)
    if leaks:
        refusal = f"\nThe step itself was refused: {refused}" if refused is not None else ""
        raise LeakError(
            f"{report}{refusal}\n{training.optimizer} changes what it has no gradient for, or what it was not given. "
            "Take an optimizer that moves the parameters in its groups alone, and those only that have a gradient."
        ) from refused
    if refused is not None:
        raise refused
    return report


def _shared_policies(sequence: TaskSequence, report: VerifyReport) -> str:
    by_name = {p.name: p for p in sequence.attached.policies if p.protection == "shared"}
    found = [f"{name}: {by_name[name].protection} ({by_name[name].reason})" for name in report.leaks if name in by_name]
    return "; ".join(found) or "none of them is shared by choice; please report this model"
