"""Small models written by hand, each for something that published models do rarely; those of the tracing tests too."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from tests.graph.tracing.odd_models import FILES, MODELS
from tests.zoo.sweep import odd_images, odd_sequences, odd_traps
from tests.zoo.sweep.odd_base import ODD
from tests.zoo.sweep.subject import Subject, normal

FILLED = (*FILES, odd_images, odd_sequences, odd_traps)
"""Importing them fills the tables."""
TRAINABLE = """
    MovedChannels Flattened ChannelsLast GroupedAndDepthwise DenseWithReuse PickedByData PickedByBuffer SqueezeExcite
    GatedMLP Attention CalledThrice Checkpointed AutocastInside CustomFunction Quotient DropoutAndLists Conditional
    Vmapped ReplacedParameters TwoNorms SharedNorm RawAlsoRead NormOfAPart WithPlainNorm WithBareNorm WithSigmoidNorm
    WithPeekingNorm WithActivatedNorm OtherNorms NormBehindLinear InPlaceIntoSlice CopyIntoSlices
    ForeachOps Reductions Functional SliceOfWeight ModuleAndFunction BiasElsewhere ScaledWeight
    TransposedWeight SwappedKernel FunctionalConv WeightStandardised MixingSubclass ActivatedSubclass KeepingSubclass
    DirectForward PermutedRows ExpandedColumn StoredTransposed
"""
"""Models of the tracing tests that have a backward and keep no state between forwards."""


def subjects() -> Iterator[Subject]:
    """Yield those written for the sweep, then those of the tracing tests."""
    for name, (cls, inputs, spec) in ODD.items():
        yield Subject(f"odd {name}", "odd", cls, inputs, spec, _first_line(cls), steps=3)
    for name in TRAINABLE.split():
        cls, shape = MODELS[name]
        yield Subject(f"odd {name}", "odd", cls, normal(*shape[1:]), note=_first_line(cls), steps=3)


def _first_line(cls: type[nn.Module]) -> str:
    own = cls.__dict__.get("__doc__") or ""
    return str(own).strip().split("\n")[0].rstrip(".")
