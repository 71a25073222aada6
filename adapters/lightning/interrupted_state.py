"""A task at the moment of an exception, for checkpoints that are written after its rollback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

import fgadahat_hooks as fh


@dataclass(frozen=True)
class InterruptedState:
    """A task at an exception: the session's state, and the model's values that the rollback replaces."""

    state: dict[str, Any]
    values: dict[str, Tensor]

    @classmethod
    def of(cls, session: fh.Session, prefix: str) -> InterruptedState | None:
        """Return the state of a session whose model has a prefix in the LightningModule; None before the trace."""
        if not session.traced:
            return None
        state, model = session.state_dict(), session.model.state_dict()
        names = [*state["running"]["tensors"], *(n for n in model if n.endswith(".hat_gate.embedding"))]
        return cls(state, {f"{prefix}{name}": model[name].clone() for name in names if name in model})
