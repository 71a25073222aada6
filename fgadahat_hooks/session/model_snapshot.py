"""Undo what happens to a model's tensors if a block raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def restored_on_error(model: nn.Module) -> Iterator[None]:
    """Run the block; if it raises, put back the model's own tensors, their values and the sizes of its layers."""
    snapshot = _ModelSnapshot(model)
    try:
        yield
    except BaseException:
        snapshot.restore()
        raise


class _ModelSnapshot:
    """Which tensors a model has, with copies of their values on the CPU, and the integer attributes of its modules."""

    def __init__(self, model: nn.Module) -> None:
        modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
        self._owners = [(module, dict(module._parameters), dict(module._buffers)) for module in modules]
        self._sizes = [(m, name, value) for m in modules for name, value in vars(m).items() if type(value) is int]
        self._values = [(t, t.detach().to("cpu", copy=True)) for t in self._tensors() if not t.is_meta]

    def _tensors(self) -> list[Tensor]:
        """Return each tensor once."""
        tables = [table for _, parameters, buffers in self._owners for table in (parameters, buffers)]
        return list({id(t): t for table in tables for t in table.values() if t is not None}.values())

    def restore(self) -> None:
        """Put everything back."""
        for module, parameters, buffers in self._owners:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        for module, name, size in self._sizes:
            setattr(module, name, size)
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.copy_(value)
