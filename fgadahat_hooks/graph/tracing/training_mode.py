"""The part of a model that only a forward in training mode runs: auxiliary heads, above all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fgadahat_hooks.graph.tracing.layer_record import LayerRecord
from fgadahat_hooks.graph.tracing.recorder import Recorder

_KEPT_IN_EVALUATION = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Run the block in training mode, except norms and dropout: these would refuse a batch of one, or draw noise.

    The model is in evaluation mode afterwards; the caller restores all modes.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, _KEPT_IN_EVALUATION):
            module.eval()
    try:
        yield
    finally:
        model.eval()


def unused_layers(recorder: Recorder) -> list[str]:
    """Return the layers that no forward has used so far."""
    return [name for name, record in recorder.records.items() if not _is_used(record)]


def _is_used(record: LayerRecord) -> bool:
    return record.called or record.inputs is not None or bool(record.functional_users)


@contextmanager
def preserve_evaluation_records(recorder: Recorder) -> Iterator[None]:
    """Restore, after the block, the inputs and readers of the layers that evaluation uses.

    Finished tasks give what evaluation computes; what training also feeds into these layers protects nothing. Where
    gates can act is not restored: for that, both modes count.
    """
    used = [record for record in recorder.records.values() if _is_used(record)]
    before = [(r, r.inputs, r.mixed_weight, {k: list(v) for k, v in r.readers.items()}) for r in used]
    try:
        yield
    finally:
        for record, inputs, mixed_weight, readers in before:
            record.inputs, record.mixed_weight, record.readers = inputs, mixed_weight, readers
