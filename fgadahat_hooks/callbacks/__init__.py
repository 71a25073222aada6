"""What happens at the events of a task: three callbacks of ours, and the base for a user's own."""

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
