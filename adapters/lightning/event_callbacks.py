"""Importance, summation and gradient adjustment as Lightning callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback
from torch import Tensor

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning.callback_adapter import CallbackAdapter
from fgadahat_hooks.adapters.lightning.task_callback import TaskCallback


class ImportanceCallback(CallbackAdapter):
    """Measures the importance of units in the task of the same Trainer's `TaskCallback`.

    Args:
        session: The session, attached without an importance callback of its own (`callbacks=[]`).
        spec: Block `importance`, or a dict; that of the session's spec if None.
        base_importance: `b_I` >= 0, added to every unit at the end of the task (FG-AdaHAT Eq. 6); if None, that of the
            session's spec, else 0.01.
        target: What an attribution measure attributes: a function of the attached model's output and the dataloader's
            batch that returns one number a sample, `(batch,)`. The logit of the true label if None.

    Raises:
        SpecError: The block is not valid.
        BadCallError: `target` is not a function.
    """

    def __init__(
        self,
        session: fh.Session,
        spec: Any = None,
        base_importance: float | None = None,
        target: Callable[[Any, Any], Tensor] | None = None,
    ) -> None:
        """Create the library's callback; it is added to the session when a fit begins."""
        if base_importance is None:
            base_importance = getattr(session.spec.adjustment, "base_importance", 0.01)
        core = fh.ImportanceCallback(session.spec.importance if spec is None else spec, base_importance, target)
        super().__init__(session, core)


class SummationCallback(CallbackAdapter):
    """Sums the importances of all tasks when the task of the same Trainer's `TaskCallback` ends.

    Args:
        session: The session, attached without a summation callback of its own (`callbacks=[]`).
        spec: Block `summation`, or a dict; that of the session's spec if None.

    Raises:
        SpecError: The block is not valid.
    """

    def __init__(self, session: fh.Session, spec: Any = None) -> None:
        """Create the library's callback; it is added to the session when a fit begins."""
        super().__init__(session, fh.SummationCallback(session.spec.summation if spec is None else spec))


class GradientAdjustCallback(CallbackAdapter):
    """Protects earlier tasks during the task of the same Trainer's `TaskCallback`.

    Args:
        session: The session, attached without a gradient-adjust callback of its own (`callbacks=[]`).
        spec: Block `adjustment`, or a dict; that of the session's spec if None.

    Raises:
        SpecError: The block is not valid.
    """

    def __init__(self, session: fh.Session, spec: Any = None) -> None:
        """Create the library's callback; it is added to the session when a fit begins."""
        super().__init__(session, fh.GradientAdjustCallback(session.spec.adjustment if spec is None else spec))


def callbacks(session: fh.Session, task: str | int, num_classes: int | None = None, **options: Any) -> list[Callback]:
    """Return the callbacks that learn one task: `Trainer(callbacks=callbacks(session, task="birds"))`.

    Args:
        session: The session. If it was attached with `callbacks=[]`, the list holds the callbacks that its spec asks
            for; otherwise the session keeps its own.
        task: Id of the new task.
        num_classes: Number of outputs of the task's head; as at attach if None.
        **options: Further options of `TaskCallback`.

    Returns:
        A `TaskCallback`, and the callbacks that the session lacks.
    """
    parts: list[Callback] = [TaskCallback(session, task, num_classes, **options)]
    if session.own_callbacks:
        return parts
    if session.spec.adjustment.mode == "fg_adahat":
        parts += [ImportanceCallback(session), SummationCallback(session)]
    return [*parts, GradientAdjustCallback(session)]
