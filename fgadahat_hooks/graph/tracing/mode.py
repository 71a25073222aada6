"""The dispatch mode that carries labels beside the tensors of one real forward."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgadahat_hooks.graph.tracing.call import Call
from fgadahat_hooks.graph.tracing.constants import Constants
from fgadahat_hooks.graph.tracing.custom import CustomForwards
from fgadahat_hooks.graph.tracing.geometry import storage_key
from fgadahat_hooks.graph.tracing.operation import Operation, is_foreign, plain_tensors
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.relabel import FACTORIES, output_labels
from fgadahat_hooks.graph.tracing.weights import WeightUses

_NORM_OPERATIONS = frozenset(
    "native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_no_update _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training".split()
)
_MIXING_NORMS = {"native_layer_norm": (-1, 2), "native_group_norm": (1, 1)}
"""Norms whose statistics mix channels: axis of the channels, and place of the weight among the arguments."""


class TaintMode(TorchDispatchMode):
    """Runs every operation, then tells the recorder and the label store about it."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        """Start with an empty stack of running modules."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self._model = model
        self.stack: list[str] = []
        self.constants = Constants(model)
        self.uses = WeightUses(recorder, self.stack)
        self.custom = CustomForwards(recorder, self.uses.owner)
        self._norms = {name: module for name, module in model.named_modules() if is_batch_norm(module)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and visit it."""
        kwargs = kwargs or {}
        if is_foreign(func):
            out = func(*args, **kwargs)
            self._distrust((args, kwargs))
            return out
        if torch.is_inference_mode_enabled():
            with self:  # inference mode skips the step that takes composite operations apart
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if not getattr(func, "is_view", False):
            for t in plain_tensors((args, kwargs)):
                self.recorder.store.check_zeros(t)
        out = func(*args, **kwargs)
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
            self._visit(Operation(func, args, kwargs, out))
        return out

    def _visit(self, op: Operation) -> None:
        if op.is_view:
            return
        if not self._normalise(op):
            for t in op.inputs:
                self.recorder.read(t, op)
            if not self.uses.handle(op):
                self._relabel(op)
        self.custom.follow(op)
        self.constants.follow(op)

    def _relabel(self, op: Operation) -> None:
        store = self.recorder.store
        labels = output_labels(Call(op, self.recorder.table, store, self.constants))
        if not op.mutable:
            if op.first_out is not None:
                put = store.put_zeros if op.name in FACTORIES else lambda t: store.put(t, labels)
                put(op.first_out)
            return
        for position, t in enumerate(op.written):
            store.put(t, 1 if position else labels)

    def _normalise(self, op: Operation) -> bool:
        """Handle the operation of a norm that runs; return whether its output has been labelled."""
        if not self.stack or op.mutable or op.first_out is None:
            return False
        name = self.stack[-1]
        if op.name in _MIXING_NORMS:
            axis, place = _MIXING_NORMS[op.name]
            own = self._model.get_submodule(name)
            folds = own._parameters.get("weight") is not None and _folds(own, op, place)
            return folds and self.recorder.gated_again(name, op.args[0], op.first_out, axis)
        norm = self._norms.get(name)
        if norm is None or op.name not in _NORM_OPERATIONS:
            return False
        if norm._parameters.get("weight") is None:  # an export would have nowhere to write the mask of many layers
            self.recorder.regates.refuse(name)
        if not _folds(norm, op, 1):
            self.recorder.norm_feeds.setdefault(name, set()).add("")
            self.recorder.regates.refuse(name)
            return False
        return self.recorder.normalised(name, op.args[0], op.first_out)

    def _distrust(self, tree: Any) -> None:
        """After an operation that may do anything: all it touched is live, weights are used in unknown ways."""
        for t in plain_tensors(tree):
            self.recorder.read(t, None)
            owner = self.uses.owner(t)
            if owner is not None:
                self.recorder.mix(owner)
            self.recorder.store.forget([storage_key(t)])


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises each channel by statistics that are fixed in evaluation mode."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _folds(norm: nn.Module, op: Operation, place: int) -> bool:
    """Return whether a mask on the norm's own weight and bias, or on its output if it has none, zeroes the output.

    Args:
        norm: The module that runs.
        op: The operation it runs.
        place: Number of the operation's argument that is the weight; the next is the bias.
    """
    weight, bias = norm._parameters.get("weight"), norm._parameters.get("bias")
    if weight is None:
        plain = (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward)
        return type(norm).forward in plain and "forward" not in vars(norm)
    return _is_same(weight, op.args[place]) and _is_same(bias, op.args[place + 1])


def _is_same(own: Tensor | None, used: Tensor | None) -> bool:
    if own is None or used is None:
        return own is used
    return storage_key(own) == storage_key(used) and own.shape == used.shape
