"""One task from begin to end, and what can be asked of finished ones; `sequence` is what a session holds of all this.

- A running task: `task` (what a training loop calls), `lifecycle` (begin and end), `checks`, `task_entry` (what it
  begins with), `task_record` (what it leaves), `batches`, `sparsity_term` (what `task.regularization()` returns, for
  the loop to add to the loss), `branches` (new execution paths). At the end `task_record` copies the task's tensors,
  then come the callbacks' `on_task_end`; what changes tensors must act before both.
- Finished tasks: `mixed` (one task per sample), `forgetting`, `capacity` and `history`, `measuring`, `clip`.
- Randomness, for a restart: `random_states`, `epoch_replay`.

Everything here knows one attached model and its tasks, and nothing of sessions or files. What stops a write to a
protected weight is in `protection`.
"""
