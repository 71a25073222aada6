"""Validate the arguments of the metrics and bring them into one form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from fgadahat_hooks.errors import BadCallError

TaskIds = Hashable | Sequence[Hashable] | Tensor
"""One task id, or a list, tuple or 1-d tensor with one id a sample."""


def validated_task_ids(tasks: int | Sequence[Hashable]) -> tuple[Hashable, ...]:
    """Return the task ids in the order of learning; a number stands for the ids 0, 1, 2 and so on.

    Raises:
        BadCallError: `tasks` is neither a number above 0 nor a sequence of hashable, distinct ids.
    """
    if isinstance(tasks, int) and not isinstance(tasks, bool) and tasks > 0:
        return tuple(range(tasks))
    if not isinstance(tasks, Sequence) or isinstance(tasks, str) or not tasks:
        raise BadCallError(f"Expected `tasks` to be a number above 0 or a list of task ids, but got {tasks!r}.")
    _check_distinct(tasks)
    return tuple(tasks)


def _check_distinct(tasks: Sequence[Hashable]) -> None:
    """Raise if an id is not hashable, or occurs twice."""
    unhashable = [repr(task) for task in tasks if isinstance(_hashable(task), _UnhashableId)]
    if unhashable:
        raise BadCallError(
            "Expected `tasks` to hold ids that can be hashed, such as strings and ints, but got "
            f"{', '.join(unhashable)}."
        )
    twice = sorted({repr(task) for task in tasks if list(tasks).count(task) > 1})
    if twice:
        raise BadCallError(f"Expected `tasks` to name each task once, but got {', '.join(twice)} more than once.")


def correct_predictions(preds: Tensor, target: Tensor) -> Tensor:
    """Return which samples are classified correctly, `(batch,)` bool.

    Args:
        preds: Labels, `(batch,)` integers, or scores, `(batch, classes)`, of which the argmax counts.
        target: True labels, `(batch,)` integers.

    Raises:
        BadCallError: One of them has another form; lists all problems.
    """
    problems = [f"`{name}` to be a tensor, but got {value!r}" for name, value in _non_tensors(preds, target)]
    if not problems:
        problems = _shape_problems(preds, target)
    if problems:
        raise BadCallError(f"Expected {'; and '.join(problems)}.")
    return (preds.argmax(dim=1) if preds.ndim == 2 else preds) == target


def _non_tensors(preds: object, target: object) -> list[tuple[str, object]]:
    named = (("preds", preds), ("target", target))
    return [(name, value) for name, value in named if not isinstance(value, Tensor)]


def _shape_problems(preds: Tensor, target: Tensor) -> list[str]:
    problems = []
    if target.ndim != 1 or target.is_floating_point() or target.is_complex():
        problems.append(f"`target` to be labels, (batch,) integers, but got {_describe(target)}")
    labels = preds.ndim == 1 and not preds.is_floating_point() and not preds.is_complex()
    if not labels and not (preds.ndim == 2 and preds.shape[1] > 0):
        problems.append(
            f"`preds` to be labels, (batch,) integers, or scores, (batch, classes), but got {_describe(preds)}"
        )
    if not problems and len(preds) != len(target):
        problems.append(f"`preds` and `target` to be of one length, but got {len(preds)} and {len(target)}")
    return problems


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def row_index(learnt: Hashable | Tensor, index: Mapping[Hashable, int]) -> int:
    """Return the row of the task learnt last.

    Args:
        learnt: Its id.
        index: Position of each task by its id.

    Raises:
        BadCallError: The id is not in `index`.
    """
    return _indices([learnt.item() if isinstance(learnt, Tensor) and learnt.ndim == 0 else learnt], "learnt", index)[0]


def column_indices(task: TaskIds, samples: int, index: Mapping[Hashable, int]) -> list[int]:
    """Return the column of each sample's task, or the one column of all samples.

    Args:
        task: One id, or one a sample.
        samples: Number of samples.
        index: Position of each task by its id.

    Raises:
        BadCallError: An id is not in `index`, or there is not one id a sample.
    """
    if isinstance(task, Tensor):
        task = task.tolist()
    if not isinstance(task, list | tuple) or _hashable(task) in index:  # an id may itself be a tuple
        return _indices([task], "task", index)
    if len(task) != samples:
        raise BadCallError(f"Expected `task` to be one id, or one for each of {samples} samples, but got {len(task)}.")
    return _indices(task, "task", index)


def _indices(ids: Sequence[object], name: str, index: Mapping[Hashable, int]) -> list[int]:
    unknown = [repr(i) for i in dict.fromkeys(map(_hashable, ids)) if i not in index]
    if unknown:
        known = ", ".join(map(repr, index))
        raise BadCallError(f"Expected `{name}` to be one of the tasks {known}, but got {', '.join(unknown)}.")
    return [index[_hashable(i)] for i in ids]


def _hashable(value: object) -> Hashable:
    """Return the value if it is hashable, else a stand-in that equals no task id."""
    try:
        hash(value)
    except TypeError:
        return _UnhashableId(value)
    return value


class _UnhashableId:
    """A hashable stand-in for an unhashable value, with the same `repr`."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)
