from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.tracing.dispatch_mode import LabelMode
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO
from fgadahat_hooks.graph.tracing.output_labels import RULE_MODULES
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.rule_registry import RULES
from tests.graph.tracing import operations
from tests.graph.tracing.operations import PLANE, ROWS, VOLUME, Function

ATOMS = 3
SETS = [frozenset(c) for n in (1, 2) for c in itertools.combinations(range(ATOMS), n)]

CASES: dict[str, tuple[Function, tuple[tuple[int, ...], ...]]] = {
    **{f"unary {k}": (f, (ROWS,)) for k, f in operations.UNARY.items()},
    **{f"rows {k}": (f, (ROWS,)) for k, f in (operations.ELEMENTS | operations.MOVES | operations.REDUCTIONS).items()},
    **{f"plane {k}": (f, (PLANE,)) for k, f in (operations.MOVES | operations.REDUCTIONS).items()},
    **{f"plane {k}": (f, (PLANE,)) for k, f in operations.PLANES.items()},
    **{f"volume {k}": (f, (VOLUME,)) for k, f in operations.VOLUMES.items()},
    **{f"pair {k}": (f, (ROWS, ROWS)) for k, f in operations.PAIRS.items()},
}
LIVE_ANYWAY = {"rows complex", "rows mask by data", "plane mask by data"}
"""Safe but not exact: all outputs are live."""


def labelled(shape: tuple[int, ...], pattern: str, recorder: Recorder, live: bool = False) -> Tensor:
    """Draw labels: one a channel, or one an element."""
    known = [recorder.table.intern(s) for s in SETS] * 3 + [ZERO]
    choices = torch.tensor(known + [LIVE] * live, dtype=torch.int32)
    if pattern == "channel":
        line = choices[torch.randint(len(choices), (shape[1],))]
        return line.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)
    return choices[torch.randint(len(choices), shape)]


def is_on(labels: Tensor, recorder: Recorder, atoms: frozenset[int]) -> Tensor:
    """Return where a value may be non-zero while these atoms are on."""
    kinds, where = labels.unique(return_inverse=True)
    sets = {label: recorder.table.sets(label) for label in kinds.tolist()}
    on = [label == LIVE or (label != ZERO and all(s & atoms for s in found)) for label, found in sets.items()]
    return torch.tensor(on)[where].view(labels.shape)


def traced(function: Function, inputs: list[Tensor], labels: list[Tensor], recorder: Recorder) -> Tensor:
    """Run under the mode; return the labels of the output."""
    for x, label in zip(inputs, labels, strict=True):
        recorder.store.put(x, label)
    with torch.no_grad(), LabelMode(nn.Module(), recorder):
        out = function(*inputs)
    found = recorder.store.get(out)
    return torch.full(out.shape, LIVE, dtype=torch.int32) if found is None else found


def subsets() -> Iterator[frozenset[int]]:
    for n in range(ATOMS):
        yield from map(frozenset, itertools.combinations(range(ATOMS), n))


def run(function: Function, inputs: list[Tensor]) -> Tensor:
    torch.manual_seed(7)
    with torch.no_grad():
        return function(*[x.clone() for x in inputs])


@pytest.mark.parametrize("pattern", ["channel", "any"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_labelled_zero_is_zero(name: str, pattern: str) -> None:
    function, shapes = CASES[name]
    claims = 0
    for seed in range(2):
        torch.manual_seed(seed)
        recorder = Recorder({}, set())
        inputs = [torch.rand(s) * 0.8 + 0.1 for s in shapes]
        labels = [labelled(s, pattern, recorder, live=seed > 0) for s in shapes]
        expected_shape = run(function, inputs).shape
        out = traced(function, [x.clone() for x in inputs], labels, recorder)
        assert out.shape == expected_shape
        for atoms in subsets():
            gated = [x * is_on(label, recorder, atoms) for x, label in zip(inputs, labels, strict=True)]
            zero = ~is_on(out, recorder, atoms)
            value = run(function, gated)
            if value.shape == zero.shape:
                assert not bool(value[zero].any())
                claims += int(zero.sum())
    assert claims > 0 or name in LIVE_ANYWAY


@pytest.mark.parametrize("name", operations.NEVER_ZERO)
def test_what_is_not_zero_at_zero_is_live(name: str) -> None:
    recorder = Recorder({}, set())
    x = torch.rand(ROWS)
    out = traced(operations.NEVER_ZERO[name], [x], [labelled(ROWS, "channel", recorder)], recorder)
    assert bool((out == LIVE).all())


def test_an_unknown_operation_is_live() -> None:
    recorder = Recorder({}, set())
    x = torch.rand(ROWS)
    out = traced(lambda t: torch.special.bessel_j0(t), [x], [labelled(ROWS, "channel", recorder)], recorder)
    assert bool((out == LIVE).all())


def test_out_arguments_keep_the_numbers_and_are_live() -> None:
    recorder = Recorder({}, set())
    x, out = torch.rand(ROWS), torch.zeros(6, 4)
    labels = traced(lambda t: torch.cat([t, t], out=out), [x], [labelled(ROWS, "channel", recorder)], recorder)
    assert torch.equal(out, torch.cat([x, x]))
    assert bool((labels == LIVE).all())


def test_every_rule_names_a_real_operation() -> None:
    assert len(RULE_MODULES) == 2
    missing = [n for n in RULES if not hasattr(torch.ops.aten, n)]
    assert set(missing) <= {"true_divide"}
