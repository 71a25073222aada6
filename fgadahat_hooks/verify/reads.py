"""Which entries of gated weights and biases a finished task reads, and their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from fgadahat_hooks.callbacks.prior_use import unit_values
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.context import GatedLayer
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.tasks.certificate import ReadEntries


def task_reads(attached: AttachedModel, task: TaskId, record: TaskRecord) -> dict[str, ReadEntries]:
    """Return which entries of each gated layer a task reads, by the forwards that are known.

    Layers that no forward has used are left out: nothing is known of what feeds them.
    """
    context = attached.context(None, TaskState({task: record}, {}, []))
    unused = set(attached.graph.unseen) - attached.graph.inputs.keys()
    reads = {}
    for name, layer in context.layers.items():
        if name not in unused:
            units, inputs = unit_values(layer, context.cumulative, 1.0)
            reads[name] = ReadEntries((units != 0).cpu(), None if inputs is None else (inputs != 0).cpu())
    return reads


def entries_of(attached: AttachedModel, reads: Mapping[str, ReadEntries]) -> Iterator[tuple[str, Tensor]]:
    """Yield the values of these entries now, flat, by the qualified name of each weight and bias."""
    layers = attached.layers()
    for name, read in reads.items():
        prefix, layer = f"{name}." if name else "", layers[name]
        yield f"{prefix}weight", layer.weight.detach()[_of_weight(layer, read).expand(layer.weight.shape)]
        if layer.bias is not None:
            yield f"{prefix}bias", layer.bias.detach()[read.units.to(layer.bias.device)]


def _of_weight(layer: GatedLayer, read: ReadEntries) -> Tensor:
    """Return the entries of the weight as a mask that broadcasts to it."""
    device = layer.weight.device
    units = layer.kind.unit_view(layer.module, read.units.to(device))
    return units if read.inputs is None else units & layer.kind.input_view(layer.module, read.inputs.to(device))
