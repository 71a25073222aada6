"""What is checked before a task begins or is resumed."""

from __future__ import annotations

from fgadahat_hooks.errors import BadCallError, DuplicateTaskError, NoTaskError, TaskRunningError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import InterruptedTask, NumClasses, TaskId
from fgadahat_hooks.protection.head_outputs import requested_outputs
from fgadahat_hooks.tasks.sequence import TaskSequence


def check_can_begin(
    sequence: TaskSequence, task: TaskId, num_classes: NumClasses | None, resume: InterruptedTask | None
) -> None:
    """Refuse a task that cannot begin now.

    Raises:
        TaskRunningError: Another task is running, or was interrupted.
        DuplicateTaskError: A task of this id is finished.
        BadCallError: The id or the number of classes cannot be used.
    """
    attached = sequence.attached
    attached.check_attached()
    _check_no_other_task(sequence, task, resume)
    if any(gate.embedding.is_meta for gate in attached.gates.values()):
        raise BadCallError(
            "Expected a model with values, but it is on the meta device: they are lost. Load them first, for example "
            "by fgadahat_hooks.load(model, path) on a new model."
        )
    _check_id(sequence, task)
    _check_num_classes(attached, num_classes)


def _check_no_other_task(sequence: TaskSequence, task: TaskId, resume: InterruptedTask | None) -> None:
    if sequence.running is not None:
        raise TaskRunningError(
            f"Task {sequence.running.id!r} is running; end it before task {task!r} begins. Two tasks never overlap: "
            "leave the first `with session.task(...)` block."
        )
    interrupted = sequence.interrupted
    if interrupted is not None and interrupted is not resume:
        raise TaskRunningError(
            f"The loaded state is in the middle of task {interrupted.id!r}. Continue it by "
            f"`session.task({interrupted.id!r}, resume=True)`, or call `session.roll_back()` to forget it."
        )


def _check_id(sequence: TaskSequence, task: TaskId) -> None:
    if not isinstance(task, str | int) or isinstance(task, bool) or task == "":
        raise BadCallError(f"Expected a task id that is a non-empty str or an int, but got {task!r}.")
    if task in sequence.state.records:
        raise DuplicateTaskError(
            f"Task {task!r} is finished already; training it again could change it. Choose another id, or "
            f"evaluate it with `session.use({task!r})`."
        )


def _check_num_classes(attached: AttachedModel, num_classes: NumClasses | None) -> None:
    if num_classes is not None and not attached.traced:
        raise BadCallError(
            "Expected `example_inputs` at attach for a task with num_classes: before the first batch is traced "
            "the head is not known. Pass attach(model, spec, example_inputs)."
        )
    requested_outputs(num_classes, attached)


def interrupted_task(sequence: TaskSequence, task: TaskId, num_classes: NumClasses | None) -> InterruptedTask:
    """Return the interrupted task of an id.

    Raises:
        NoTaskError: No task was interrupted, or another one.
        BadCallError: The task has another number of classes.
    """
    found = sequence.interrupted
    if found is None or found.id != task:
        what = "no task was interrupted" if found is None else f"the interrupted task is {found.id!r}"
        raise NoTaskError(
            f"Expected task {task!r} to be one that a loaded state is in the middle of, but {what}. Leave resume=True "
            "out to begin a new task; `session.interrupted` tells which one can be resumed."
        )
    if num_classes is not None and num_classes != found.num_classes:
        raise BadCallError(
            f"Expected num_classes={found.num_classes} as when task {task!r} began, but got {num_classes!r}. Leave it "
            "out to resume the task."
        )
    return found
