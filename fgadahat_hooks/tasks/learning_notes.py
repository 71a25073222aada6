"""What a user should know of how a task went: whether it had room, and whether it learnt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from fgadahat_hooks.functional.plasticity import task_share
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.protection.plan_advice import narrow_layers
from fgadahat_hooks.tasks.outcome import Outcome

SHOWN = 3
FEW_SAMPLES = 32
"""With fewer samples an accuracy says nothing."""
SURE, UNLIKELY = 0.8, 0.5
"""Where so many samples' labels are those that the loss trains for, they are the loss's; with fewer, they are not."""
BETTER = 0.1
"""By how much the training loss must be below that of an even guess to show that labels and outputs belong together."""
FEWEST_TRAVEL = 1.5
"""How far an embedding must be able to go to leave the draw from N(0, 1) that it begins with."""


class Masks(NamedTuple):
    """The masks of a task, and which units it could have had, by layer."""

    task: dict[str, Tensor]
    used_before: dict[str, Tensor]

    @classmethod
    def of(cls, attached: AttachedModel, state: TaskState) -> Masks:
        """Return those of the task that the gates have now; `state` has the tasks before."""
        task = {name: gate.hard_mask().bool().cpu() for name, gate in attached.gates.items()}
        return cls(task, {name: mask.cpu() for name, mask in state.cumulative_mask(attached.graph).items()})


def notes_on_room(attached: AttachedModel, masks: Masks, finished: int) -> list[str]:
    """Return what is wrong with the units that a task has."""
    closed = [name for name, mask in masks.task.items() if not bool(mask.any())]
    budget = attached.spec.regularization.budget
    notes = [*_closed(closed), *few_free_units(attached, masks, finished)]
    return [*notes, *_over_budget(masks, budget)] if budget > 0 else notes


def few_free_units(attached: AttachedModel, masks: Masks, finished: int) -> list[str]:
    """Return a note if a task that gets its units by share got fewer than that."""
    gates = attached.spec.gates
    return list(_few_free(masks, gates.tasks or 1, finished)) if gates.choose == "share" else []


def _closed(names: list[str]) -> Iterator[str]:
    if names:
        yield (
            f"{_layers(names)} no open unit: nothing passes. Lower `gate_lr`, or let masks be given by share "
            "(gates.choose: share)."
        )


def _few_free(masks: Masks, tasks: int, finished: int) -> Iterator[str]:
    new = {name: int((mask & ~masks.used_before[name]).sum()) for name, mask in masks.task.items()}
    units = {name: len(mask) for name, mask in masks.task.items()}
    short = {name: units[name] for name, count in new.items() if count < task_share(units[name], tasks, finished)}
    narrow = narrow_layers(short, max(tasks, finished + 1))
    yield from _short_of_room({name: new[name] for name in short if name not in narrow}, tasks, finished)
    yield from _too_narrow({name: units[name] for name in narrow}, max(tasks, finished + 1))


def _short_of_room(new: dict[str, int], tasks: int, finished: int) -> Iterator[str]:
    """Describe layers that more room would serve, given the units that each has left."""
    if new:
        none = sum(count == 0 for count in new.values())
        yield (
            f"{_layers(list(new))} fewer free units than the task's share ({none} with none at all): room was made for "
            f"{tasks} tasks, and this is number {finished + 1}. Attach with room for more (gates.tasks), or widen "
            "the network."
        )


def _too_narrow(units: dict[str, int], tasks: int) -> Iterator[str]:
    """Describe layers that have fewer units than there are tasks."""
    if units:
        yield (
            f"{_layers(list(units))} no free unit left, of {max(units.values())} at most: too few for {tasks} tasks, "
            "so room for more (gates.tasks) would not help. Widen the layer, or leave it out of the gates "
            "(gates.exclude) and give each task its own copy (rest: per_task)."
        )


def _over_budget(masks: Masks, budget: float) -> Iterator[str]:
    units = sum(len(mask) for mask in masks.task.values())
    new = sum(int((mask & ~masks.used_before[name]).sum()) for name, mask in masks.task.items())
    if new > 2 * budget * units:
        yield (
            f"it took {new / units:.0%} of all units, more than twice its budget of {budget:.0%}: later tasks will "
            "lack them. Raise `gate_lr` or regularization.factor, or use gates.choose: share."
        )


def notes_on_training(
    attached: AttachedModel, travel: float | None, unfinished: str, failed: str | None, outcome: Outcome
) -> list[str]:
    """Return what is wrong with how a task was trained, and with what it has learnt.

    Args:
        attached: The model.
        travel: Sum of the embeddings' learning rates over the steps; None where a step is not bounded by it.
        unfinished: How far a task came that ended before its length.
        failed: Why the statistics of norms could not be measured anew.
        outcome: The task on its last training batches.
    """
    notes = notes_on_travel(attached, travel)
    if unfinished and attached.spec.gates.choose == "learn":
        notes.append(f"it ended after {unfinished}: its gates were annealed for more. Pass its true length.")
    if failed:
        notes.append(f"the statistics of its norms stay as training left them: {failed}.")
    return notes + notes_on_outcome(outcome)


def notes_on_travel(attached: AttachedModel, travel: float | None) -> list[str]:
    """Return a note if the task embeddings could not go far enough for a mask to be learnt.

    Args:
        attached: The model.
        travel: Sum of the embeddings' learning rates over the steps; None where a step is not bounded by it.
    """
    if attached.spec.gates.choose != "learn" or travel is None or travel >= FEWEST_TRAVEL:
        return []
    return [
        f"its embeddings could move by {travel:.2g} at most (learning rate times steps until its mask is fixed), less "
        f"than {FEWEST_TRAVEL}: its mask is nearly the random half that it began with. Raise `gate_lr`, or use "
        "gates.choose: share."
    ]


def notes_on_outcome(outcome: Outcome) -> list[str]:
    """Return what is wrong with what a task has learnt."""
    if outcome.failed:
        return [f"what it learnt could not be checked: running its last batches again raised {outcome.failed}."]
    if outcome.samples < FEW_SAMPLES or outcome.classes < 2 or not _is_classified(outcome):
        return []
    seen = f"on its last {outcome.samples} training samples, under the hard mask that is served"
    margin = min(0.1, 0.5 / outcome.classes, 0.2 * (1 - outcome.most_frequent))
    if outcome.accuracy < outcome.most_frequent + margin:
        return [
            f"accuracy is {outcome.accuracy:.0%} {seen}, where the most frequent class alone gives "
            f"{outcome.most_frequent:.0%}: the task is at chance. Train longer, or raise the learning rate."
        ]
    if outcome.training_loss is not None and outcome.loss > 2 * outcome.training_loss + 0.2:
        return [
            f"the loss is {outcome.loss:.2g} {seen}, and was {outcome.training_loss:.2g} in training: the task is "
            "served worse than it was trained. Let the gates be hard for longer (session.task(..., epochs=...) or "
            "gates.choose: share), and see that the loop calls the model itself."
        ]
    return []


def _is_classified(outcome: Outcome) -> bool:
    """Return whether the loss is one of the outputs and the labels of the loader's batches, as far as can be told.

    An autoencoder, labels that the loop shifts, or indices in their place would look like a task at chance.
    """
    if outcome.agreement is None and outcome.training_loss is None:
        return True  # compiled code: neither was seen
    if outcome.agreement is not None and (outcome.agreement >= SURE or outcome.agreement < UNLIKELY):
        return outcome.agreement >= SURE
    loss = outcome.training_loss
    return loss is not None and loss < math.log(outcome.classes) - BETTER


def _layers(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN]) + (" and others" if len(names) > SHOWN else "")
    return f"layer {shown} has" if len(names) == 1 else f"{len(names)} layers ({shown}) have"
