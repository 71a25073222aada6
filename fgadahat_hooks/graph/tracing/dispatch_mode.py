"""The dispatch mode that carries labels beside the tensors of one real forward."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgadahat_hooks.graph.tracing.constant_tensors import ConstantTensors
from fgadahat_hooks.graph.tracing.custom_forwards import CustomForwards
from fgadahat_hooks.graph.tracing.labels import LIVE
from fgadahat_hooks.graph.tracing.operation import Operation, is_foreign, plain_tensors
from fgadahat_hooks.graph.tracing.origins import Origins
from fgadahat_hooks.graph.tracing.output_labels import FACTORIES, output_labels
from fgadahat_hooks.graph.tracing.output_layers import weight_names
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.rule_registry import RuleContext
from fgadahat_hooks.graph.tracing.storage import storage_key
from fgadahat_hooks.graph.tracing.weight_uses import WeightUses

_BATCH_NORM_OPERATIONS = frozenset(
    "native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_no_update _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training".split()
)
_MIXING_NORMS = {"native_layer_norm": (-1, 2), "native_group_norm": (1, 1)}
"""Norms whose statistics mix channels: axis of the channels, and index of the weight among the arguments."""


class LabelMode(TorchDispatchMode):
    """Runs every operation, then updates the labels and the record of the forward."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        """Start with an empty stack of running modules."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self._model = model
        self.stack: list[str] = []
        self.constants = ConstantTensors(model)
        self.origins = Origins(weight_names(model, recorder), model.buffers())
        self.uses = WeightUses(recorder, self.stack)
        self.custom = CustomForwards(recorder, self.uses.owner)
        self._batch_norms = {name: module for name, module in model.named_modules() if is_batch_norm(module)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and record it."""
        kwargs = kwargs or {}
        if is_foreign(func):
            out = func(*args, **kwargs)
            self._distrust((args, kwargs))
            self.origins.follow_foreign(str(func), plain_tensors((args, kwargs)), plain_tensors(out))
            return out
        if torch.is_inference_mode_enabled():
            with self:  # inference mode does not decompose composite operations itself
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
            self._record(Operation(func, args, kwargs, out))
        return out

    def _record(self, op: Operation) -> None:
        self.origins.follow(op)
        if op.is_view:
            return
        if not self._record_norm(op):
            for t in op.inputs:
                self.recorder.record_read(t, op)
            if not self.uses.handle(op):
                self._label_output(op)
        self.custom.follow(op)
        self.constants.update(op)

    def _label_output(self, op: Operation) -> None:
        store = self.recorder.store
        labels = output_labels(RuleContext(op, self.recorder.table, store, self.constants))
        if op.mutable:
            for position, t in enumerate(op.written):
                store.put(t, LIVE if position else labels)
        elif op.first_out is not None and op.name in FACTORIES:
            store.put_zeros(op.first_out)
        elif op.first_out is not None:
            store.put(op.first_out, labels)

    # -------------------------------------------------------------- norms
    def _record_norm(self, op: Operation) -> bool:
        """Record the operation of a running norm; return whether its output has been labelled."""
        if not self.stack or op.mutable or op.first_out is None:
            return False
        name = self.stack[-1]
        if op.name in _MIXING_NORMS:
            return self._record_mixing_norm(name, op, op.first_out)
        if name in self._batch_norms and op.name in _BATCH_NORM_OPERATIONS:
            return self._record_batch_norm(name, op, op.first_out)
        return False

    def _record_mixing_norm(self, name: str, op: Operation, output: Tensor) -> bool:
        axis, place = _MIXING_NORMS[op.name]
        module = self._model.get_submodule(name)
        maskable = module._parameters.get("weight") is not None and _is_maskable(module, op, place)
        return maskable and self.recorder.record_regated_norm(name, op.args[0], output, axis)

    def _record_batch_norm(self, name: str, op: Operation, output: Tensor) -> bool:
        norm = self._batch_norms[name]
        if norm._parameters.get("weight") is None:  # an export could not write a mask of several layers into it
            self.recorder.regated_norms.refuse(name)
        if not _is_maskable(norm, op, 1):
            self.recorder.norm_inputs.setdefault(name, set()).add("")
            self.recorder.regated_norms.refuse(name)
            return False
        return self.recorder.record_batch_norm(name, op.args[0], output)

    def _distrust(self, tree: Any) -> None:
        """Make live all that an unknown operation got, and count the weights among it as mixed."""
        for t in plain_tensors(tree):
            self.recorder.record_read(t, None)
            owner = self.uses.owner(t)
            if owner is not None:
                self.recorder.record_mixed_weight(owner)
            self.recorder.store.forget([storage_key(t)])


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises each channel by statistics that are fixed in evaluation mode."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _is_maskable(norm: nn.Module, op: Operation, place: int) -> bool:
    """Return whether a mask on the norm's own weight and bias, or on its output if it has none, zeroes the output.

    Args:
        norm: The running module.
        op: The operation that it runs.
        place: Index of the weight among the operation's arguments; the bias is next.
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
