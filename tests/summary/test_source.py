"""A run is given as a session, a summary or a folder; anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fgadahat_hooks.errors import BadCallError, CheckpointError
from fgadahat_hooks.summary.source import as_summary
from tests.support import runs


def test_a_session_a_summary_and_a_folder_are_the_same(tmp_path: Path) -> None:
    session = runs.session()
    session.save(tmp_path / "run", {"accuracy": runs.ACCURACY})
    found = [as_summary(session, runs.ACCURACY), as_summary(runs.summary()), as_summary(str(tmp_path / "run"))]
    assert {summary.tasks for summary in found} == {runs.TASKS}
    first, *others = (summary.accuracy for summary in found)
    assert first is not None
    assert all(other is not None and torch.equal(first.nan_to_num(-1), other.nan_to_num(-1)) for other in others)


def test_accuracies_given_replace_those_of_the_summary() -> None:
    assert as_summary(runs.summary()) is runs.summary()
    found = as_summary(runs.summary(), [[0.5], [0.5, 0.5], [0.5, 0.5, 0.5]])
    assert found.accuracy is not None
    assert found.accuracy.nansum() == 3
    with pytest.raises(BadCallError, match="a matrix of 3 x 3"):
        as_summary(runs.summary(), [[0.5]])


@pytest.mark.parametrize("wrong", [None, 3, torch.nn.Linear(2, 2)])
def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(BadCallError, match=f"but got {type(wrong).__name__}"):
        as_summary(wrong)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found nothing there"):
        as_summary(tmp_path / "nowhere")
