"""Lightning: real callbacks over a session; the user's LightningModule stays as it is.

`Trainer(callbacks=callbacks(session, task="birds"))` learns one task. Each class is a `lightning.pytorch.Callback`, in
any order and any subset; `TaskCallback` carries the task and its checkpoint, the other three take part in it.
"""

from fgadahat_hooks.adapters.lightning.parts import (
    GradientAdjustCallback,
    ImportanceCallback,
    SummationCallback,
    callbacks,
)
from fgadahat_hooks.adapters.lightning.task_callback import TaskCallback

__all__ = ["GradientAdjustCallback", "ImportanceCallback", "SummationCallback", "TaskCallback", "callbacks"]
