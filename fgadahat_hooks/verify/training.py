"""The dynamic proof: two scratch tasks, learnt on a copy with one optimizer of the user's own kind."""

from __future__ import annotations

import copy
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
from fgadahat_hooks.errors import BadCallError, OptimizerError
from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.protection.guard import OptimizerGuard
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.task import Task
from fgadahat_hooks.verify.blame import Change, blame, put_back
from fgadahat_hooks.verify.entries import gated_entries, other_entries
from fgadahat_hooks.verify.report import Tasks, TrainingReport
from fgadahat_hooks.verify.scratch import Logits, changed, logits, scratch_of, seeded
from fgadahat_hooks.verify.steps import ScratchSteps, own_groups

_ELSEWHERE = "(something that is neither a parameter nor a buffer)"
Found = tuple[dict[str, Tasks], TrainingReport, OptimizerError | None]


class _Watched(NamedTuple):
    """A tensor that training may not change, or not everywhere.

    Attributes:
        name: Its qualified name.
        tensor: Its data.
        before: A copy of it.
        protected: Bool mask of what must keep its bits.
        by_choice: Whether the spec lets later tasks move it.
    """

    name: str
    tensor: Tensor
    before: Tensor
    protected: Tensor
    by_choice: bool

    def overstepped(self) -> int:
        """Return the number of protected elements that are not the same bits as before."""
        return int((_differ(self.before, self.tensor) & self.protected).sum())


def learn_scratch_tasks(
    sequence: TaskSequence,
    inputs: Any,
    make: Callable[[list[dict[str, Any]]], Optimizer],
    steps: int,
    bar: Bar = NO_BAR,
) -> Found:
    """Learn two tasks on a copy, with one optimizer that keeps its state from the first to the second.

    Each finished task, before and after, and each scratch task is a step of the bar.

    Returns:
        For each leaking tensor the tasks whose logits it changed; the report; and the error by which a step was
        refused, if one was: the training ended with it.
    """
    adjusting = [copy.copy(c) for c in sequence.callbacks.items if isinstance(c, GradientAdjustCallback)]
    with sequence.alone():
        scratch = scratch_of(sequence, adjusting)
    hard = any(callback.hard for callback in adjusting)
    with closing(scratch.attached.hooks):
        before = logits(scratch, inputs, bar)
        with torch.no_grad():
            watched = list(_watched(scratch, hard))
        with seeded(), torch.enable_grad():
            OptimizerGuard(scratch)
            report, refused = _learn(scratch, sequence.attached.model, inputs, make, steps, bar)
        if not report.moved and refused is None:
            raise BadCallError(
                f"Expected an optimizer that trains, but {report.optimizer} moved nothing in {steps} step(s): nothing "
                "would be proved. Give it a learning rate above 0, or more steps."
            )
        return _compare(partial(logits, scratch, inputs, bar), before, watched, report, refused)


def _learn(
    scratch: TaskSequence, users: nn.Module, inputs: Any, make: Callable[..., Any], steps: int, bar: Bar
) -> tuple[TrainingReport, OptimizerError | None]:
    """Learn the two tasks; count what the steps moved, task by task."""
    optimizer: Optimizer | None = None
    moved, refused = 0, None
    for number in (1, 2):
        try:
            with Task(scratch, _free_id(scratch, number), None) as task:
                optimizer = (
                    _made(scratch.attached.model, own_groups(scratch), users, make) if optimizer is None else optimizer
                )
                task.protect(optimizer)
                own = [(p, p.detach().clone()) for p in scratch.attached.model.parameters()]
                ScratchSteps(scratch, task, optimizer, inputs).run(steps)
                moved = max(moved, sum(int(_differ(p, before).sum()) for p, before in own))
            bar.advance()
        except OptimizerError as error:
            refused = error
            break
    return TrainingReport(type(optimizer).__name__, steps, moved, 0, {}), refused


def _free_id(scratch: TaskSequence, number: int) -> str:
    name = f"scratch {number}"
    while name in scratch.state.records:
        name += "'"
    return name


def _made(model: nn.Module, groups: list[dict[str, Any]], users: nn.Module, make: Callable[..., Any]) -> Optimizer:
    """Build the optimizer; anything but one of the copy's own parameters could step the user's model."""
    try:
        optimizer = make(groups)
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
    mine = {id(p) for p in model.parameters()}
    if not held & mine or held & {id(p) for p in users.parameters()}:
        raise BadCallError(
            f"Expected `optimizer` to build {type(optimizer).__name__} from the parameter groups it is given, but it "
            "holds other parameters. The groups are those of a copy; do not use the model's own parameters."
        )
    return optimizer


# ------------------------------------------------------------------ what may not move
def _watched(scratch: TaskSequence, hard: bool) -> Iterator[_Watched]:
    for name, tensor, protected in gated_entries(scratch):
        yield _Watched(name, tensor, tensor.clone(), protected, not hard)
    for name, tensor, protection in other_entries(scratch):
        if protection in ("frozen", "shared"):
            everywhere = torch.full((), protection == "frozen", device=tensor.device).expand(tensor.shape)
            yield _Watched(name, tensor, tensor.clone(), everywhere, False)
    for task, record in scratch.state.records.items():
        for name, tensor in record.tensors.items():
            if tensor.is_floating_point():
                everywhere = torch.ones((), dtype=torch.bool, device=tensor.device).expand(tensor.shape)
                yield _Watched(f"{name} (as stored for {task!r})", tensor, tensor.clone(), everywhere, False)


def _compare(
    outputs: Callable[[], Logits],
    before: Logits,
    watched: list[_Watched],
    report: TrainingReport,
    refused: OptimizerError | None,
) -> Found:
    """Say which tensors leak."""

    def look() -> Tasks:
        now = outputs()
        return changed(before, {task: now[task] for task in before})

    with torch.no_grad():
        over = {w.name: count for w in watched if not w.by_choice and (count := w.overstepped())}
        suspects = [Change(w.name, w.tensor, w.before, w.tensor.clone()) for w in watched]
        suspects = [s for s in suspects if bool(_differ(s.before, s.after).any())]
        found: dict[str, Tasks] = {}
        if look():
            put_back(suspects)
            left = look()
            found = {_ELSEWHERE: left} if left else blame(suspects, look)
    chosen = {w.name for w in watched if w.by_choice}
    leaks = {name: found.get(name, ()) for name in dict.fromkeys([*over, *found]) if name not in chosen}
    by_choice = {name: tasks for name, tasks in found.items() if name in chosen}
    kept = sum(int(w.protected.sum()) for w in watched if not w.by_choice)
    return leaks, replace(report, kept=kept, overstepped=over, by_choice=by_choice), refused


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Compare bits: -0.0 is not 0.0, and a NaN is itself."""
    kind = _INTEGERS[a.element_size()]
    return a.detach().contiguous().view(kind) != b.detach().contiguous().view(kind)
