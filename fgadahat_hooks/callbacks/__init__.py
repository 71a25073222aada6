"""What happens at the events of a task: importance, summation and gradient adjustment, one callback a file.

To add a callback, subclass `Callback` (base.py) and pass it to `attach`. The adjustment rate of a weight: prior_use.py
carries values of units to weights, rates.py picks the equation of the mode, gradient_adjust.py applies the rate. To add
a mode, write its block in `spec/callback_specs.py`, its equation in `functional/adjust.py` and its line in rates.py.
Probes (layer_probe.py, model_probe.py) collect what a measure needs. Nothing here defines a measure, changes the
model's structure, or knows a session.
"""

from fgadahat_hooks.callbacks.base import Callback, CallbackList
from fgadahat_hooks.callbacks.gradient_adjust import GradientAdjustCallback
from fgadahat_hooks.callbacks.importance import ImportanceCallback
from fgadahat_hooks.callbacks.summation import SummationCallback
from fgadahat_hooks.gates.context import GatedLayer, TaskContext

__all__ = [
    "Callback",
    "CallbackList",
    "GatedLayer",
    "GradientAdjustCallback",
    "ImportanceCallback",
    "SummationCallback",
    "TaskContext",
]
