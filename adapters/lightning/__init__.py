"""Lightning: callbacks that drive a session; the user's LightningModule stays unchanged.

`Trainer(callbacks=callbacks(session, task="birds"))` learns one task. `task_callback.py` runs the task and saves it in
checkpoints; `event_callbacks.py` has importance, summation and adjustment, in any order and any subset. Each class is a
`lightning.pytorch.Callback`. The other files each serve one job of `TaskCallback`; `cli.py` is for LightningCLI.
"""

from fgadahat_hooks.adapters.lightning.event_callbacks import (
    GradientAdjustCallback,
    ImportanceCallback,
    SummationCallback,
    callbacks,
)
from fgadahat_hooks.adapters.lightning.task_callback import TaskCallback

__all__ = ["GradientAdjustCallback", "ImportanceCallback", "SummationCallback", "TaskCallback", "callbacks"]
