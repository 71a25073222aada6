"""Every adapter gives bit-identical results to the plain loop."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest

from tests.adapters.conformance import SPECS, VARIANTS, RunResult, run
from tests.adapters.subjects import SUBJECTS, plain_loop

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]
"""Lightning's warnings about a small run."""


@cache
def expected(spec: str, variant: str) -> RunResult:
    """Run the plain loop, once for all subjects."""
    return run(plain_loop, spec, VARIANTS[variant])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_an_adapter_gives_the_bits_of_the_plain_loop(subject: str, spec: str, variant: str) -> None:
    assert run(SUBJECTS[subject], spec, VARIANTS[variant]).differing(expected(spec, variant)) == []


@pytest.mark.parametrize("spec", SPECS)
def test_the_variants_are_different_runs(spec: str) -> None:
    results = [expected(spec, variant) for variant in VARIANTS]
    assert all(a.differing(b) for a, b in pairwise(results))
    masks = [m for result in results for layers in result.masks.values() for m in layers.values()]
    assert any(bool(m.any()) and not bool(m.all()) for m in masks)
