"""Wrong calls about optimizers, steps and batches, and the message of each."""

from __future__ import annotations

import torch
from torch import nn

from fgadahat_hooks import errors
from tests.support.call_world import (
    CallCase,
    WithoutLength,
    ended_task,
    iterate,
    step_without_annealing,
    step_without_embeddings,
    unprotected_sgd,
)

NOT_RUNNING = "Task 'left' is not running. Use it inside its own block: `with session.task('left') as task:`."

STEPS: list[CallCase] = [
    CallCase(
        "protect_a_scheduler",
        "running",
        lambda w: w.task.protect(torch.optim.lr_scheduler.StepLR(unprotected_sgd(w), 1)),
        errors.BadCallError,
        (
            "Expected a torch.optim.Optimizer, but got StepLR. Pass the optimizer itself, not a scheduler, a "
            "scaler or a list; call protect once for each."
        ),
    ),
    CallCase(
        "protect_a_list",
        "running",
        lambda w: w.task.protect([unprotected_sgd(w)]),
        errors.BadCallError,
        (
            "Expected a torch.optim.Optimizer, but got list. Pass the optimizer itself, not a scheduler, a scaler"
            " or a list; call protect once for each."
        ),
    ),
    CallCase(
        "protect_an_optimizer_of_another_model",
        "running",
        lambda w: w.task.protect(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)),
        errors.ForeignOptimizerError,
        (
            "SGD holds no parameter of the attached model. Build it from `session.parameter_groups(lr=...)`, "
            "after `attach` and after moving the model to its device."
        ),
    ),
    CallCase(
        "protect_after_the_task",
        "learnt",
        lambda w: ended_task(w).protect(unprotected_sgd(w)),
        errors.NoTaskError,
        NOT_RUNNING,
    ),
    CallCase(
        "step_without_embeddings",
        "running",
        step_without_embeddings,
        errors.ForeignOptimizerError,
        (
            "No protected optimizer holds the task embeddings of 1 layer(s), first '0': their gates would never "
            "learn. Build the optimizer from `session.parameter_groups(lr=...)`."
        ),
    ),
    CallCase(
        "step_unprotected_in_a_task",
        "running",
        lambda w: unprotected_sgd(w).step(),
        errors.UnprotectedOptimizerError,
        (
            "SGD is about to step parameters of the attached model inside task 'cars', but it was not protected: "
            "finished tasks would be forgotten. Call `task.protect(optimizer)` once after building it. Nothing "
            "was changed."
        ),
    ),
    CallCase(
        "step_unprotected_outside_tasks",
        "learnt",
        lambda w: unprotected_sgd(w).step(),
        errors.UnprotectedOptimizerError,
        (
            "SGD is about to step parameters of the attached model outside any task: finished tasks would be "
            "forgotten. Train inside `with session.task(...) as task:` and call `task.protect(optimizer)`. "
            "Nothing was changed."
        ),
    ),
    CallCase(
        "step_without_annealing",
        "running",
        step_without_annealing,
        errors.NotAnnealedError,
        (
            "The gate scale was never set in this task. Go over `task.batches(loader)` instead of the loader, or "
            "call `task.anneal(batch, num_batches)` before each forward."
        ),
    ),
    CallCase(
        "batches_without_length",
        "running",
        lambda w: iterate(w, WithoutLength()),
        errors.BadCallError,
        (
            "Expected `num_batches` for a loader without a length (WithoutLength): the gates are annealed over the "
            "batches of an epoch. Pass task.batches(loader, num_batches=...)."
        ),
    ),
    CallCase(
        "more_batches_than_announced",
        "running",
        lambda w: iterate(w, [1, 2, 3], num_batches=2),
        errors.BadCallError,
        (
            "Expected at most 2 batches, but the loader gave another one. Pass the true num_batches: the gates "
            "reach their largest scale on the last batch."
        ),
    ),
    CallCase(
        "number_of_batches_is_zero",
        "running",
        lambda w: iterate(w, [1, 2], num_batches=0),
        errors.BadCallError,
        "Expected `num_batches` to be a whole number of at least 1, but got 0.",
    ),
    CallCase(
        "number_of_batches_is_a_float",
        "running",
        lambda w: iterate(w, [1, 2], num_batches=2.0),
        errors.BadCallError,
        "Expected `num_batches` to be a whole number of at least 1, but got 2.0.",
    ),
    CallCase(
        "batches_after_the_task",
        "learnt",
        lambda w: next(iter(ended_task(w).batches([1]))),
        errors.NoTaskError,
        NOT_RUNNING,
    ),
    CallCase(
        "protect_before_the_task",
        "attached",
        lambda w: w.session.task("birds").protect(unprotected_sgd(w)),
        errors.NoTaskError,
        "Task 'birds' is not running. Use it inside its own block: `with session.task('birds') as task:`.",
    ),
    CallCase(
        "anneal_from_zero",
        "running",
        lambda w: w.task.anneal(0, 10),
        errors.BadCallError,
        ("Expected `batch` to be within 1 and num_batches=10, but got 0. Batches of an epoch are counted from 1."),
    ),
    CallCase(
        "anneal_beyond_the_last",
        "running",
        lambda w: w.task.anneal(11, 10),
        errors.BadCallError,
        ("Expected `batch` to be within 1 and num_batches=10, but got 11. Batches of an epoch are counted from 1."),
    ),
    CallCase(
        "anneal_after_the_task",
        "learnt",
        lambda w: ended_task(w).anneal(1, 2),
        errors.NoTaskError,
        NOT_RUNNING,
    ),
    CallCase(
        "regularization_after_the_task",
        "learnt",
        lambda w: ended_task(w).regularization(),
        errors.NoTaskError,
        NOT_RUNNING,
    ),
    CallCase(
        "lr_is_zero",
        "attached",
        lambda w: w.session.parameter_groups(lr=0),
        errors.BadCallError,
        "Expected `lr` to be a number > 0, but got 0.",
    ),
    CallCase(
        "lr_is_text",
        "attached",
        lambda w: w.session.parameter_groups(lr="1e-3"),
        errors.BadCallError,
        "Expected `lr` to be a number > 0, but got '1e-3'.",
    ),
    CallCase(
        "lr_is_not_a_number",
        "attached",
        lambda w: w.session.parameter_groups(lr=float("nan")),
        errors.BadCallError,
        "Expected `lr` to be a number > 0, but got nan.",
    ),
    CallCase(
        "gate_lr_is_negative",
        "attached",
        lambda w: w.session.parameter_groups(lr=0.1, gate_lr=-1.0),
        errors.BadCallError,
        "Expected `gate_lr` to be a number > 0, but got -1.0.",
    ),
    CallCase(
        "clip_by_a_mask_without_a_layer",
        "attached",
        lambda w: w.session.clip_grad_by_mask({"1": torch.ones(5)}),
        errors.BadCallError,
        (
            "Expected one tensor of shape (units,) for every gated layer, but it is missing, unknown or of "
            "another shape for: '0', '1'. `session.cumulative_mask` shows the form."
        ),
    ),
    CallCase(
        "clip_by_a_mask_of_another_size",
        "attached",
        lambda w: w.session.clip_grad_by_mask({"0": torch.ones(4)}),
        errors.BadCallError,
        (
            "Expected one tensor of shape (units,) for every gated layer, but it is missing, unknown or of "
            "another shape for: '0'. `session.cumulative_mask` shows the form."
        ),
    ),
    CallCase(
        "clip_with_an_unknown_aggregation",
        "attached",
        lambda w: w.session.clip_grad_by_mask({"0": torch.ones(5)}, "sum"),
        errors.BadCallError,
        "Expected `aggregation` to be one of ['max', 'mean', 'min'], but got 'sum'.",
    ),
]
