"""The part of a model that only a forward in training mode runs: auxiliary heads, above all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fgadahat_hooks.graph.tracing.recorder import LayerRecord, Recorder

_CALM = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


@contextmanager
def in_training(model: nn.Module) -> Iterator[None]:
    """Run the block in training mode, but norms and dropout: they would draw noise, and refuse a batch of one sample.

    To be used where all modes are put back afterwards; the block is left in evaluation mode.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, _CALM):
            module.eval()
    try:
        yield
    finally:
        model.eval()


def unused(recorder: Recorder) -> list[str]:
    """Return the layers that no forward has used so far."""
    return [name for name, record in recorder.records.items() if not _used(record)]


def _used(record: LayerRecord) -> bool:
    return record.called or record.inputs is not None or bool(record.hosts)


@contextmanager
def keeping_evaluation(recorder: Recorder) -> Iterator[None]:
    """Let what is known of the layers that evaluation uses stand: who feeds them, and who alone reads their outputs.

    Finished tasks put out what evaluation computes; what training feeds its layers with beside that protects nothing.
    Where gates can act is another matter, and both count for it.
    """
    used = [record for record in recorder.records.values() if _used(record)]
    before = [(r, r.inputs, r.whole, {k: list(v) for k, v in r.readers.items()}) for r in used]
    try:
        yield
    finally:
        for record, inputs, whole, readers in before:
            record.inputs, record.whole, record.readers = inputs, whole, readers
