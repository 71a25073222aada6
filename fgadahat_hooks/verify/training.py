"""The dynamic proof: two scratch tasks, learnt on a copy with one optimizer that the user's function makes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.callbacks import GradientAdjustCallback
from fgadahat_hooks.callbacks.base import optimizer_parameters
from fgadahat_hooks.errors import BadCallError, OptimizerError, ProtectedWeightsRestoredWarning
from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.protection.guard import OptimizerGuard
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.task import Task
from fgadahat_hooks.verify.entries import gated_entries, other_entries
from fgadahat_hooks.verify.leak_search import Change, find_leaks, restore
from fgadahat_hooks.verify.report import Tasks, TrainingReport
from fgadahat_hooks.verify.scratch import Logits, changed_tasks, scratch_copy, seeded, task_logits
from fgadahat_hooks.verify.steps import Around, ScratchSteps, parameter_groups

_OTHER_STATE = "(something that is neither a parameter nor a buffer)"
TrainingResult = tuple[dict[str, Tasks], TrainingReport, OptimizerError | None]


class _WatchedTensor(NamedTuple):
    """A tensor that training may not change, or not everywhere.

    Attributes:
        name: Its qualified name.
        tensor: Its data.
        before: A copy of it.
        protected: Bool mask of the elements that must keep their bits.
        by_choice: Whether the spec allows later tasks to change it.
    """

    name: str
    tensor: Tensor
    before: Tensor
    protected: Tensor
    by_choice: bool

    def overstepped(self) -> int:
        """Return the number of protected elements that are not bit-identical to before."""
        return int((_differ(self.before, self.tensor) & self.protected).sum())


def learn_scratch_tasks(
    sequence: TaskSequence,
    inputs: Any,
    make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    steps: int,
    bar: Bar = NO_BAR,
    around: Around | None = None,
) -> TrainingResult:
    """Learn two tasks on a copy, with one optimizer that keeps its state from the first to the second.

    The bar advances for each finished task, before and after, and for each scratch task. Without `around`, writes
    beside the steps are not put back, so that they are named.

    Returns:
        For each leaking tensor the tasks whose logits it changed; the report; and the error that refused a step and
        ended the training, if one did.
    """
    adjusting = [copy.copy(c) for c in sequence.callbacks.items if isinstance(c, GradientAdjustCallback)]
    with sequence.exclusive():
        scratch = scratch_copy(sequence, adjusting)
    scratch.state.watched = around is not None
    hard = any(callback.hard for callback in adjusting)
    with closing(scratch.attached.hooks):
        before = task_logits(scratch, inputs, bar)
        with torch.no_grad():
            watched = list(_watched_tensors(scratch, hard))
        with seeded(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ProtectedWeightsRestoredWarning)  # of what `around` does
            OptimizerGuard(scratch)
            learning = partial(_learn_task, scratch, inputs, steps, around)
            report, refused = _learn(scratch, sequence.attached.model, make_optimizer, steps, bar, learning)
        if not report.moved and refused is None:
            raise BadCallError(
                f"Expected an optimizer that trains, but {report.optimizer} moved nothing in {steps} step(s): nothing "
                "would be proved. Give it a learning rate above 0, or more steps."
            )
        leaks, report = _compare(partial(task_logits, scratch, inputs, bar), before, watched, report)
        return leaks, report, refused


def _learn_task(
    scratch: TaskSequence, inputs: Any, steps: int, around: Around | None, task: Task, optimizer: Optimizer
) -> int:
    """Learn one task; return how many elements its steps moved."""
    task.protect(optimizer)
    copies = [(p, p.detach().clone()) for p in scratch.attached.model.parameters()]
    ScratchSteps(scratch, task, optimizer, inputs, around).run(steps)
    return sum(int(_differ(p, before).sum()) for p, before in copies)


def _learn(
    scratch: TaskSequence,
    user_model: nn.Module,
    make_optimizer: Callable[..., Any],
    steps: int,
    bar: Bar,
    learn_task: Callable[[Task, Optimizer], int],
) -> tuple[TrainingReport, OptimizerError | None]:
    """Learn the two tasks, and count the elements that the steps of each moved."""
    optimizer: Optimizer | None = None
    moved, refused = 0, None
    for number in (1, 2):
        try:
            with Task(scratch, _unused_id(scratch, number), None) as task:
                if optimizer is None:
                    optimizer = _build_optimizer(scratch, user_model, make_optimizer)
                moved = max(moved, learn_task(task, optimizer))
            bar.advance()
        except OptimizerError as error:
            refused = error
            break
    return TrainingReport(type(optimizer).__name__, steps, moved, 0, {}), refused


def _unused_id(scratch: TaskSequence, number: int) -> str:
    name = f"scratch {number}"
    while name in scratch.state.records:
        name += "'"
    return name


def _build_optimizer(scratch: TaskSequence, user_model: nn.Module, make_optimizer: Callable[..., Any]) -> Optimizer:
    """Build the optimizer; with parameters other than those of the copy it could step the user's model."""
    groups = parameter_groups(scratch)
    try:
        optimizer = make_optimizer(groups)
    except (TypeError, ValueError) as error:
        raise BadCallError(
            f"Expected `optimizer` to make an optimizer of parameter groups, but it raised {type(error).__name__}: "
            f"{error}. Bind what it needs: lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9)."
        ) from error
    if not isinstance(optimizer, Optimizer):
        raise BadCallError(
            f"Expected `optimizer` to return a torch.optim.Optimizer, but it returned {type(optimizer).__name__}. A "
            "wrapper does not step the model itself: return what it wraps."
        )
    held = optimizer_parameters(optimizer)
    copied = {id(p) for p in scratch.attached.model.parameters()}
    if not held & copied or held & {id(p) for p in user_model.parameters()}:
        raise BadCallError(
            f"Expected `optimizer` to build {type(optimizer).__name__} from the parameter groups it is given, but it "
            "holds other parameters. The groups are those of a copy; do not use the model's own parameters."
        )
    return optimizer


# ------------------------------------------------------------------ what may not move
def _watched_tensors(scratch: TaskSequence, hard: bool) -> Iterator[_WatchedTensor]:
    for name, tensor, protected in gated_entries(scratch):
        yield _WatchedTensor(name, tensor, tensor.clone(), protected, not hard)
    for name, tensor, protection in other_entries(scratch):
        if protection in ("frozen", "shared"):
            everywhere = torch.full((), protection == "frozen", device=tensor.device).expand(tensor.shape)
            yield _WatchedTensor(name, tensor, tensor.clone(), everywhere, False)
    for task, record in scratch.state.records.items():
        for name, tensor in record.tensors.items():
            if tensor.is_floating_point():
                everywhere = torch.ones((), dtype=torch.bool, device=tensor.device).expand(tensor.shape)
                yield _WatchedTensor(f"{name} (as stored for {task!r})", tensor, tensor.clone(), everywhere, False)


def _compare(
    compute_logits: Callable[[], Logits], before: Logits, watched: list[_WatchedTensor], report: TrainingReport
) -> tuple[dict[str, Tasks], TrainingReport]:
    """Return the leaks, and the report completed by what moved and what changed by choice."""

    def changed_now() -> Tasks:
        now = compute_logits()
        return changed_tasks(before, {task: now[task] for task in before})

    protected = [w for w in watched if not w.by_choice]
    with torch.no_grad():
        overstepped = _overstepped(protected)
        changed = _changed_by_training(watched, changed_now)
    by_choice = {w.name: changed.pop(w.name) for w in watched if w.by_choice and w.name in changed}
    leaks = dict.fromkeys(overstepped, ()) | changed
    kept = sum(int(w.protected.sum()) for w in protected)
    return leaks, replace(report, kept=kept, overstepped=overstepped, by_choice=by_choice)


def _overstepped(protected: list[_WatchedTensor]) -> dict[str, int]:
    """Return the number of protected elements that moved, for each tensor in which some did."""
    return {w.name: count for w in protected if (count := w.overstepped())}


def _changed_by_training(watched: list[_WatchedTensor], changed_now: Callable[[], Tasks]) -> dict[str, Tasks]:
    """Return for each tensor by which training changed finished tasks, those tasks; restore all tensors if any did."""
    changes = [Change(w.name, w.tensor, w.before, w.tensor.clone()) for w in watched]
    changes = [c for c in changes if bool(_differ(c.before, c.after).any())]
    if not changed_now():
        return {}
    restore(changes)
    still_changed = changed_now()
    return {_OTHER_STATE: still_changed} if still_changed else find_leaks(changes, changed_now)


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Compare bits: -0.0 is not 0.0, and a NaN is itself."""
    kind = _INTEGERS[a.element_size()]
    return a.detach().contiguous().view(kind) != b.detach().contiguous().view(kind)
