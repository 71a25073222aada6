"""`load_state_dict` on a model whose head has another number of outputs than the saved one."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.protection.head_outputs import differ_in_outputs, outputs_axis, resize


def resize_heads_on_load(attached: AttachedModel) -> None:
    """Resize a model's heads to fit each loaded `state_dict`; heads that `num_classes` cannot resize stay."""
    for head in attached.outputs:
        attached.hooks.load_pre(attached.model.get_submodule(head), _ResizeOnLoad(attached, head))


class _ResizeOnLoad:
    """Gives a head the number of outputs that a `state_dict` has for it: that of the task it was saved in.

    Copies of the model keep their own size.
    """

    def __init__(self, attached: AttachedModel, head: str) -> None:
        self._attached = weakref.ref(attached)
        self._head = head

    def __call__(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        attached = self._attached()
        if attached is None:
            return
        for local, parameter in attached.model.get_submodule(self._head)._parameters.items():
            if parameter is None:  # a head without bias
                continue
            name = f"{self._head}.{local}" if self._head else local
            loaded, live = state.get(f"{prefix}{local}"), attached.tensors.tensor(name)
            if not isinstance(loaded, Tensor) or loaded.shape == live.shape:
                continue
            axis = outputs_axis(attached.model, name)
            if axis is not None and differ_in_outputs(attached.model, name, live.shape, loaded.shape):
                resize(attached.tensors, name, loaded.shape[axis])

    def __deepcopy__(self, memo: Any) -> Any:
        return _keep_size

    def __reduce__(self) -> Any:
        return (_unpickled, ())


def _unpickled() -> Any:
    return _keep_size


def _keep_size(*_: Any) -> None:
    return None
