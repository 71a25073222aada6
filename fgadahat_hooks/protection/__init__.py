"""Which optimizer steps and forwards may write what finished tasks use, and what refuses or limits the others.

- An optimizer outside a task, or one that was not passed to `task.protect`: `guard` refuses its step.
- A protected optimizer: `steps` calls the callbacks around each real step, which limit the update by the rates, and
  `frozen_parameters` keeps parameters out of it that stay as the first task left them.
- A forward in training mode: writes running statistics of norms, of which each task has its own, or which
  `frozen_norm` stops after the first task if `norms` is `freeze`.
- The begin of a task: `heads` draws new heads, of which each task has its own.

All other writers come to a door: `doors` compares what finished tasks read with what `keeping` took from the model
when the last task ended, puts it back and warns, or raises. `load_watch` tells it of weights that were loaded,
`averages` keeps the own points of schedule-free optimizers in step, `finite_check` tells of NaN without a wait.

`planning` makes the `plan` of a model: how each of its tensors is protected. Rates are computed in `callbacks`; how a
task begins and ends is in `tasks`, which nothing here may import.
"""
