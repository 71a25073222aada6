"""Sessions that have learnt a few tasks."""

from __future__ import annotations

from torch import nn

import fgadahat_hooks as fh
from tests.support.learning import learn, recipe
from tests.support.small_models import Net, batch


def learnt(spec: object = None, model: nn.Module | None = None, tasks: str = "ab") -> fh.Session:
    """Return a session whose tasks are named by single letters."""
    session = fh.attach(Net() if model is None else model, {} if spec is None else spec, batch(4)[0])
    for task in tasks:
        learn(session, task, [batch(seed=ord(task))] * 2, recipe("adamw"))
    return session
