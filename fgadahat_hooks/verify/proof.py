"""Both forms of the proof, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from fgadahat_hooks.errors import BadCallError, LeakError
from fgadahat_hooks.progress import Bar, progress
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.noise import overwrite_free
from fgadahat_hooks.verify.report import VerifyReport
from fgadahat_hooks.verify.scratch import scratch_of
from fgadahat_hooks.verify.training import learn_scratch_tasks

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


def verify(
    sequence: TaskSequence,
    inputs: Any = None,
    by_choice: tuple[str, ...] = (),
    optimizer: MakeOptimizer | None = None,
    steps: int = 5,
) -> VerifyReport:
    """Run the proof on copies; see `Session.verify`.

    Args:
        sequence: The attached model, with finished tasks.
        inputs: Inputs for the model; those of the trace when left out.
        by_choice: What the plan says can change finished tasks, for the report.
        optimizer: Makes an optimizer of parameter groups; None leaves the scratch tasks out.
        steps: Steps in each of the two scratch tasks.

    Raises:
        LeakError: Some finished task's logits changed, or a protected element moved.
    """
    _check(optimizer, steps)
    inputs = sequence.attached.example_inputs if inputs is None else inputs
    if inputs is None:
        raise BadCallError("Expected `inputs`: the model was attached without example inputs.")
    with torch.inference_mode(False):
        with sequence.alone():
            scratch = scratch_of(sequence)
        count = len(scratch.state.records) * 2
        with progress("verifying", count if optimizer is None else 2 * count + 2) as bar:
            report = replace(overwrite_free(scratch, inputs, bar), by_choice=by_choice)
            if report.leaks:
                raise LeakError(f"{report}\nPolicies: {_shared(sequence, report)}")
            return report if optimizer is None else _trained(sequence, inputs, report, optimizer, steps, bar)


def _check(optimizer: Any, steps: Any) -> None:
    if isinstance(optimizer, Optimizer) or (optimizer is not None and not callable(optimizer)):
        raise BadCallError(
            "Expected `optimizer` to make an optimizer of parameter groups, but got an object of class "
            f"{type(optimizer).__name__}. Pass the class or a function: "
            "session.verify(optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1))."
        )
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise BadCallError(f"Expected `steps` to be a whole number of at least 1, but got {steps!r}.")


def _trained(
    sequence: TaskSequence, inputs: Any, report: VerifyReport, optimizer: MakeOptimizer, steps: int, bar: Bar
) -> VerifyReport:
    """Add what scratch tasks show.

    Raises:
        LeakError: They changed a finished task, or moved what is protected.
        OptimizerError: The optimizer was refused, and changed nothing that is protected.
    """
    leaks, training, refused = learn_scratch_tasks(sequence, inputs, optimizer, steps, bar)
    policies = {p.name: f"{p.protection} ({p.reason})" for p in sequence.attached.policies if p.name in leaks}
    report = replace(report, leaks=leaks, training=training, policies=policies)
    if leaks:
        said = f"\nThe step itself was refused: {refused}" if refused is not None else ""
        raise LeakError(
            f"{report}{said}\n{training.optimizer} changes what it has no gradient for, or what it was not given. Take "
            "an optimizer that moves the parameters in its groups alone, and those only that have a gradient."
        ) from refused
    if refused is not None:
        raise refused
    return report


def _shared(sequence: TaskSequence, report: VerifyReport) -> str:
    by_name = {p.name: p for p in sequence.attached.policies if p.protection == "shared"}
    found = [f"{name}: {by_name[name].protection} ({by_name[name].reason})" for name in report.leaks if name in by_name]
    return "; ".join(found) or "none of them is shared by choice; please report this model"
