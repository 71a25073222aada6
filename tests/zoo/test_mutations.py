"""The mutations still fit the source; `make mutations` runs them."""

from __future__ import annotations

import ast

import pytest

from tests.support.tree import ROOT
from tests.zoo.mutations.__main__ import MUTATIONS
from tests.zoo.mutations.mutation import Mutation
from tests.zoo.sample import SAMPLE


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.rule)
def test_the_piece_is_there_once_and_the_mutant_is_python(mutation: Mutation) -> None:
    mutant = mutation.applied(ROOT)
    ast.parse(mutant)
    assert mutant != (ROOT / "fgadahat_hooks" / mutation.file).read_text(encoding="utf-8")
    assert (ROOT / mutation.model).is_file() if mutation.by_tests else mutation.model in SAMPLE


def test_a_piece_that_has_gone_is_reported() -> None:
    gone = Mutation("no rule", "odd Frozen", "graph/policy.py", "no such source", "")
    with pytest.raises(ValueError, match=r"Expected once in graph/policy\.py, but found 0 times"):
        gone.applied(ROOT)


def test_no_rule_is_listed_twice() -> None:
    assert len({m.rule for m in MUTATIONS}) == len(MUTATIONS)
