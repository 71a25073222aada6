"""Propagation rules of operations with parameters: norms with fixed statistics, convolutions, products, embeddings."""

from __future__ import annotations

from torch import Tensor

from fgadahat_hooks.export.channel_groups import untracked
from fgadahat_hooks.export.channel_table import PrunableTensor
from fgadahat_hooks.export.propagation_step import NotPropagatedError, PropagationStep, rule


# ------------------------------------------------------------------ norms with fixed statistics
@rule(
    "native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_no_update _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training"
)
def _batch_norm(step: PropagationStep) -> None:
    x, *vectors = step.op.args[:5]
    source = step.channel_axis(x)
    if source is None or source.axis != 1:
        raise NotPropagatedError("batch norm of what no layer makes")
    for vector in vectors:
        if isinstance(vector, Tensor):
            _join_vector(step, source.channels, vector)
    step.record(step.out, 1, source.channels)


def _join_vector(step: PropagationStep, channels: Tensor, vector: Tensor) -> None:
    """Join channels with those of a parameter or buffer that has one element for each."""
    found = step.channel_axis(vector)
    others = untracked(len(channels)) if found is None else found.channels
    step.groups.join(channels, others, "beside an unknown vector")


# ------------------------------------------------------------------ weights
@rule("convolution")
def _convolution(step: PropagationStep) -> None:
    x, weight, bias, *_, transposed, _, groups = step.op.args
    entry = step.table.weight(weight)
    if entry is None or entry.layer_type is None or not _is_whole(entry, weight) or groups != entry.conv_groups:
        raise NotPropagatedError("convolution with an unknown weight")
    if transposed != (entry.layer_type.weight_axis == 1):
        raise NotPropagatedError("convolution by another layer's weight")
    channels = _input_channels(step, x, 1, weight.shape[0] if transposed else weight.shape[1] * groups)
    if groups == 1:
        _join_inputs(step, entry, channels, f"read by '{entry.layer}' beside what no layer makes")
    else:
        _join_conv_groups(step, entry, channels)
    _record_outputs(step, entry, bias, 1)


def _is_whole(entry: PrunableTensor, t: Tensor) -> bool:
    return int(t.storage_offset()) == 0 and (t.shape, t.stride()) == (entry.shape, entry.stride)


def _join_conv_groups(step: PropagationStep, entry: PrunableTensor, channels: Tensor) -> None:
    """Join the inputs and outputs of each convolution group: only it reads these inputs, so they need not be zero."""
    inputs, outputs = channels.view(entry.conv_groups, -1), _output_channels(entry).view(entry.conv_groups, -1)
    reason = f"in a group of '{entry.layer}' with what no layer makes"
    blocks = [outputs, inputs]
    if entry.implicit_outputs is not None:
        blocks.append(entry.channels[0].view(entry.conv_groups, -1))
    for block in blocks:
        step.groups.join(outputs[:, :1].expand_as(block).flatten(), block.flatten(), reason)


@rule("mm addmm")
def _matmul(step: PropagationStep) -> None:
    bias, x, weight = step.op.args[:3] if step.op.name == "addmm" else (None, *step.op.args[:2])
    entry = step.table.weight(weight)
    if entry is None or entry.layer_type is None:
        raise NotPropagatedError("product with an unknown weight")
    if not _is_whole(entry, weight.t() if entry.layer_type.weight_axis == 0 else weight):
        raise NotPropagatedError("product with an unknown weight")
    channels = _input_channels(step, x, 1, weight.shape[0])
    _join_inputs(step, entry, channels, f"'{entry.layer}' reads an input of the model")
    _record_outputs(step, entry, bias, 1)


@rule("embedding")
def _embedding(step: PropagationStep) -> None:
    weight = step.op.args[0]
    entry = step.table.weight(weight)
    if entry is None or entry.inputs is not None or not _is_whole(entry, weight):
        raise NotPropagatedError("a weight used as a table")
    _record_outputs(step, entry, None, step.out.dim() - 1)


def _input_channels(step: PropagationStep, x: Tensor, axis: int, features: int) -> Tensor:
    """Return the channels along the axis that a weight reads; `UNTRACKED` if `x` is not tracked."""
    source = step.channel_axis(x)
    if source is None:
        return untracked(features)
    if source.axis != axis or len(source.channels) != features:
        raise NotPropagatedError("product over another axis than the units'")
    return source.channels


def _join_inputs(step: PropagationStep, entry: PrunableTensor, channels: Tensor, reason: str) -> None:
    if entry.inputs is None:
        raise NotPropagatedError("a weight without input features")
    step.groups.join(entry.inputs, channels, reason)


def _record_outputs(step: PropagationStep, entry: PrunableTensor, bias: Tensor | None, axis: int) -> None:
    """Join the bias with the units of a weight, and record them along an axis of the output."""
    entry.used = True
    if bias is not None:
        _join_vector(step, _output_channels(entry), bias)
    step.record(step.out, axis, _output_channels(entry))


def _output_channels(entry: PrunableTensor) -> Tensor:
    if entry.outputs is None:
        raise NotPropagatedError("a weight whose units cannot be cut")
    return entry.outputs
