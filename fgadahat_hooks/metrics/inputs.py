"""What the metrics are fed, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from fgadahat_hooks.errors import BadCallError

TaskIds = Hashable | Sequence[Hashable] | Tensor
"""One task id, or a list, tuple or 1-d tensor with one a sample."""


def checked_tasks(tasks: int | Sequence[Hashable]) -> tuple[Hashable, ...]:
    """Return the task ids in the order of learning; a number stands for 0, 1, 2 and so on.

    Raises:
        BadCallError: It is neither a number above 0 nor a sequence of ids that differ.
    """
    if isinstance(tasks, int) and not isinstance(tasks, bool) and tasks > 0:
        return tuple(range(tasks))
    if not isinstance(tasks, Sequence) or isinstance(tasks, str) or not tasks:
        raise BadCallError(f"Expected `tasks` to be a number above 0 or a list of task ids, but got {tasks!r}.")
    unhashable = [repr(task) for task in tasks if isinstance(_key(task), _Unhashable)]
    if unhashable:
        raise BadCallError(
            "Expected `tasks` to hold ids that can be hashed, such as strings and ints, but got "
            f"{', '.join(unhashable)}."
        )
    twice = sorted({repr(task) for task in tasks if list(tasks).count(task) > 1})
    if twice:
        raise BadCallError(f"Expected `tasks` to name each task once, but got {', '.join(twice)} more than once.")
    return tuple(tasks)


def hits_of(preds: Tensor, target: Tensor) -> Tensor:
    """Return which samples are classified correctly, `(batch,)` bool.

    Args:
        preds: Labels, `(batch,)` integers, or scores, `(batch, classes)`, whose largest decides.
        target: True labels, `(batch,)` integers.

    Raises:
        BadCallError: One of them has another form; names all that is wrong.
    """
    problems = [f"`{name}` to be a tensor, but got {value!r}" for name, value in _not_tensors(preds, target)]
    if not problems:
        problems = _wrong_forms(preds, target)
    if problems:
        raise BadCallError(f"Expected {'; and '.join(problems)}.")
    return (preds.argmax(dim=1) if preds.ndim == 2 else preds) == target


def _not_tensors(preds: object, target: object) -> list[tuple[str, object]]:
    given = (("preds", preds), ("target", target))
    return [(name, value) for name, value in given if not isinstance(value, Tensor)]


def _wrong_forms(preds: Tensor, target: Tensor) -> list[str]:
    problems = []
    if target.ndim != 1 or target.is_floating_point() or target.is_complex():
        problems.append(f"`target` to be labels, (batch,) integers, but got {_form(target)}")
    labels = preds.ndim == 1 and not preds.is_floating_point() and not preds.is_complex()
    if not labels and not (preds.ndim == 2 and preds.shape[1] > 0):
        problems.append(f"`preds` to be labels, (batch,) integers, or scores, (batch, classes), but got {_form(preds)}")
    if not problems and len(preds) != len(target):
        problems.append(f"`preds` and `target` to be of one length, but got {len(preds)} and {len(target)}")
    return problems


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def row_of(learnt: Hashable | Tensor, index: Mapping[Hashable, int]) -> int:
    """Return the number of the task learnt last.

    Args:
        learnt: Its id.
        index: Number of each task by its id.

    Raises:
        BadCallError: No such task.
    """
    return _numbers([learnt.item() if isinstance(learnt, Tensor) and learnt.ndim == 0 else learnt], "learnt", index)[0]


def columns_of(task: TaskIds, samples: int, index: Mapping[Hashable, int]) -> list[int]:
    """Return the number of each sample's task, or of the one task that all samples are of.

    Args:
        task: One id, or one a sample.
        samples: Number of samples.
        index: Number of each task by its id.

    Raises:
        BadCallError: No such task, or another number of ids than of samples.
    """
    if isinstance(task, Tensor):
        task = task.tolist()
    if not isinstance(task, list | tuple) or _key(task) in index:  # a tuple may be an id
        return _numbers([task], "task", index)
    if len(task) != samples:
        raise BadCallError(f"Expected `task` to be one id, or one for each of {samples} samples, but got {len(task)}.")
    return _numbers(task, "task", index)


def _numbers(ids: Sequence[object], name: str, index: Mapping[Hashable, int]) -> list[int]:
    unknown = [repr(i) for i in dict.fromkeys(map(_key, ids)) if i not in index]
    if unknown:
        known = ", ".join(map(repr, index))
        raise BadCallError(f"Expected `{name}` to be one of the tasks {known}, but got {', '.join(unknown)}.")
    return [index[_key(i)] for i in ids]


def _key(value: object) -> Hashable:
    """Return what can be looked up; what cannot is named by its text, which is no task's id."""
    try:
        hash(value)
    except TypeError:
        return _Unhashable(value)
    return value


class _Unhashable:
    """Stands for a value without a hash, and shows itself as that value."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)
