"""Closed-form measures on layers of every type and their readers against the loops; all measures on models."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks import registry
from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.importance import ConsumerView, LayerView
from fgadahat_hooks.layers import layer_type_of
from tests.reference import measures as reference
from tests.reference.layout import rows
from tests.support.layer_models import SMALL, SUBJECTS

UNITS = 6


def layer(name: str, inputs: int, units: int) -> nn.Module:
    """Return a layer of a kind, with the number of groups in its name."""
    kind, _, groups = name.partition(" ")
    if kind == "Conv1D":
        made: nn.Module = pytest.importorskip("transformers.pytorch_utils").Conv1D(units, inputs)
    elif kind == "Embedding":
        made = nn.Embedding(inputs, units)
    else:
        made = getattr(nn, kind)(inputs, units, 2, groups=int(groups or 1))
    return made.double()


def parts(module: nn.Module, seed: int) -> dict[str, Any]:
    """Return what a view holds of a layer, with a random gradient."""
    weight = module.get_parameter("weight").detach()
    gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"module": module, "kind": layer_type_of(module), "weight": weight, "weight_grad": gradient}


def as_lists(of: Any) -> tuple[Any, Any]:
    return tuple(rows(of.module, x).tolist() for x in (of.weight, of.weight_grad))  # type: ignore[return-value]


TYPES = [
    f"{kind}{groups}" for kind in ("Conv1d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d") for groups in ("", " 2")
]


@pytest.mark.parametrize("name", [*TYPES, "Conv1D", "Embedding"])
@pytest.mark.parametrize("measure", sorted(reference.MEASURES))
def test_measures_equal_the_loops(measure: str, name: str) -> None:
    """One reader has one input per unit, another two per unit, in reverse order."""
    torch.manual_seed(1)
    every = torch.arange(UNITS)
    reader = name if name != "Embedding" else "Conv1D"
    consumers = (
        ConsumerView("one", **parts(layer(reader, UNITS, 4), 2), unit=every, feature=every),
        ConsumerView(
            "two", **parts(layer(reader, 2 * UNITS, 4), 3), unit=every.repeat(2), feature=torch.arange(12).flip(0)
        ),
    )
    samples = torch.randn(3, UNITS, 5, dtype=torch.float64)
    view = LayerView(
        "layer",
        units=UNITS,
        **parts(layer(name, 4, UNITS), 4),
        activation=samples.abs().mean((0, 2)),
        consumers=consumers,
    )
    readers = [
        reference.Reader(
            *as_lists(c), getattr(c.module, "groups", 1), list(zip(c.unit.tolist(), c.feature.tolist(), strict=True))
        )
        for c in consumers
    ]
    loops = reference.MEASURES[measure](reference.Layer(*as_lists(view), samples.tolist(), readers))
    found: Tensor = registry.measures.get(measure)().compute(view)
    torch.testing.assert_close(found, torch.tensor(loops, dtype=torch.float64), rtol=1e-12, atol=0)


OF_INPUTS = {
    "conductance_abs", "deeplift_abs", "deepliftshap_abs", "gradientshap_abs", "integrated_gradients_abs",
    "internal_influence_abs",
}  # fmt: skip
"""Measures that compare inputs with a baseline: token ids have none."""


@pytest.mark.parametrize("name", [name for name in SMALL if name != "functional"])  # no module outputs its units
def test_every_measure_gives_a_number_for_each_unit_or_is_refused(name: str) -> None:
    subject = SUBJECTS[name]
    x, y = subject.batch(2)
    refused = OF_INPUTS | {"lrp_abs"} if "all-embedding" in subject.targets else set()
    session = fh.attach(subject.model(), subject.spec, x[:1])
    with session.task("birds") as task:
        task.anneal(1, 2)
        for measure in registry.measures.names():
            with pytest.raises(CapabilityError) if measure in refused else nullcontext():
                found = session.measure(measure, x, _score if subject.places else y)
            if measure in refused:
                continue
            assert {n: v.shape for n, v in found.items()} == {
                n: (info.units,) for n, info in session.graph.layers.items()
            }
            assert all(bool(v.isfinite().all()) and bool((v >= 0).all()) for v in found.values())


def _score(output: Tensor) -> Tensor:
    return output.flatten(1).sum(1)
