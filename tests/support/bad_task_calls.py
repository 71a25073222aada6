"""Wrong calls about tasks, and the message of each."""

from __future__ import annotations

from fgadahat_hooks import errors
from tests.support.call_world import CallCase, X, detached, evaluate_mixed, run_task, two_heads, untraced

DETACHED = "The session was detached and its model given back. Call fgadahat_hooks.attach again."
NO_CARS = "Expected the id of a finished task, but got 'cars'. Finished tasks: 'birds'."

TASKS: list[CallCase] = [
    CallCase(
        "num_classes_before_the_first_batch",
        "plain",
        lambda w: run_task(untraced(), "birds", num_classes=4),
        errors.BadCallError,
        (
            "Expected `example_inputs` at attach for a task with num_classes: before the first batch is traced "
            "the head is not known. Pass attach(model, spec, example_inputs)."
        ),
    ),
    CallCase(
        "task_of_no_id",
        "attached",
        lambda w: run_task(w.session, ""),
        errors.BadCallError,
        "Expected a task id that is a non-empty str or an int, but got ''.",
    ),
    CallCase(
        "task_id_is_a_bool",
        "attached",
        lambda w: run_task(w.session, True),
        errors.BadCallError,
        "Expected a task id that is a non-empty str or an int, but got True.",
    ),
    CallCase(
        "task_id_is_a_float",
        "attached",
        lambda w: run_task(w.session, 1.0),
        errors.BadCallError,
        "Expected a task id that is a non-empty str or an int, but got 1.0.",
    ),
    CallCase(
        "task_id_is_nothing",
        "attached",
        lambda w: run_task(w.session, None),
        errors.BadCallError,
        "Expected a task id that is a non-empty str or an int, but got None.",
    ),
    CallCase(
        "task_finished_already",
        "learnt",
        lambda w: run_task(w.session, "birds"),
        errors.DuplicateTaskError,
        (
            "Task 'birds' is finished already; training it again could change it. Choose another id, or evaluate "
            "it with `session.use('birds')`."
        ),
    ),
    CallCase(
        "task_inside_a_task",
        "running",
        lambda w: run_task(w.session, "dogs"),
        errors.TaskRunningError,
        (
            "Task 'cars' is running; end it before task 'dogs' begins. Two tasks never overlap: leave the first "
            "`with session.task(...)` block."
        ),
    ),
    CallCase(
        "same_task_inside_itself",
        "running",
        lambda w: w.task.__enter__(),
        errors.TaskRunningError,
        (
            "Task 'cars' is running; end it before task 'cars' begins. Two tasks never overlap: leave the first "
            "`with session.task(...)` block."
        ),
    ),
    CallCase(
        "num_classes_is_zero",
        "attached",
        lambda w: run_task(w.session, "birds", num_classes=0),
        errors.BadCallError,
        "Expected `num_classes` to be a whole number of at least 1, but got 0.",
    ),
    CallCase(
        "num_classes_is_text",
        "attached",
        lambda w: run_task(w.session, "birds", num_classes="20"),
        errors.BadCallError,
        "Expected `num_classes` to be a whole number of at least 1, but got '20'.",
    ),
    CallCase(
        "num_classes_is_a_bool",
        "attached",
        lambda w: run_task(w.session, "birds", num_classes=True),
        errors.BadCallError,
        "Expected `num_classes` to be a whole number of at least 1, but got True.",
    ),
    CallCase(
        "num_classes_of_unlike_heads",
        "plain",
        lambda w: run_task(two_heads(), "birds", num_classes=4),
        errors.BadCallError,
        (
            "Expected heads of equally many outputs for num_classes=4, but they have {'left': 3, 'right': 2}, and "
            "which of them count classes cannot be told. Give the number of outputs of those that do: "
            "num_classes={'left': 4}; the others keep theirs."
        ),
    ),
    CallCase(
        "use_of_an_unknown_task",
        "learnt",
        lambda w: w.session.use("brids"),
        errors.UnknownTaskError,
        "Expected the id of a finished task, but got 'brids'. Did you mean 'birds'? Finished tasks: 'birds'.",
    ),
    CallCase(
        "use_before_any_task",
        "attached",
        lambda w: w.session.use("birds"),
        errors.UnknownTaskError,
        "Expected the id of a finished task, but got 'birds'. No task is finished yet.",
    ),
    CallCase(
        "use_of_something_unhashable",
        "learnt",
        lambda w: w.session.use({"birds"}),
        errors.UnknownTaskError,
        "Expected the id of a finished task, but got {'birds'}. Finished tasks: 'birds'.",
    ),
    CallCase(
        "use_of_an_empty_list",
        "learnt",
        lambda w: w.session.use([]),
        errors.BadCallError,
        "Expected one task id per sample of the batch, but got an empty list.",
    ),
    CallCase(
        "use_of_a_list_of_another_length",
        "learnt",
        lambda w: evaluate_mixed(w, ["birds"]),
        errors.BadCallError,
        (
            "Expected one task id for each of the 2 samples of the batch, but session.use got 1. Give a list as "
            "long as the batch."
        ),
    ),
    CallCase(
        "use_of_a_list_with_an_unknown_task",
        "learnt",
        lambda w: evaluate_mixed(w, ["birds", "cars"]),
        errors.UnknownTaskError,
        NO_CARS,
    ),
    CallCase(
        "masks_of_an_unknown_task",
        "learnt",
        lambda w: w.session.masks("cars"),
        errors.UnknownTaskError,
        NO_CARS,
    ),
    CallCase(
        "forward_outside_any_task",
        "learnt",
        lambda w: w.model(X),
        errors.NoTaskError,
        (
            "The forward reached the gate of '0' outside any task. Say which task the batch is of: `with "
            "session.use(task): model(x)`, or train a new one inside `with session.task(...)`."
        ),
    ),
    CallCase(
        "verify_before_any_task",
        "attached",
        lambda w: w.session.verify(),
        errors.NoTaskError,
        "No task is finished, so there is nothing to verify yet.",
    ),
    CallCase(
        "verify_in_a_task",
        "running",
        lambda w: w.session.verify(),
        errors.TaskRunningError,
        "Task 'cars' is running; verify after it has ended.",
    ),
    CallCase(
        "detach_in_a_task",
        "running",
        lambda w: w.session.detach(),
        errors.TaskRunningError,
        "Task 'cars' is running; leave its block before detaching.",
    ),
    CallCase(
        "task_after_detach",
        "plain",
        lambda w: run_task(detached(w), "birds"),
        errors.DetachedError,
        DETACHED,
    ),
    CallCase(
        "use_after_detach",
        "plain",
        lambda w: detached(w).use("birds"),
        errors.DetachedError,
        DETACHED,
    ),
    CallCase(
        "groups_after_detach",
        "plain",
        lambda w: detached(w).parameter_groups(lr=0.1),
        errors.DetachedError,
        DETACHED,
    ),
    CallCase(
        "verify_after_detach",
        "plain",
        lambda w: detached(w).verify(),
        errors.DetachedError,
        DETACHED,
    ),
]
