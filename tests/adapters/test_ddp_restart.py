"""A rank is killed in the middle of a task; both start again from the last checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.ddp_restart import work
from tests.adapters.test_ddp import differing
from tests.support.ranks import RankError, Ranks


def test_a_run_with_a_killed_rank_ends_in_the_same_bits(ranks: Ranks, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = ranks(work, str(tmp_path / "whole"))
    with Ranks(tmp_path) as doomed, pytest.raises(RankError, match="rank 1: the process died"):
        doomed(work, str(tmp_path / "broken"), 4, timeout=60)
    again = ranks(work, str(tmp_path / "broken"))
    assert [differing(a, b) for a, b in zip(whole, again, strict=True)] == [[], []]
    assert differing(*whole) == []
    assert any(name.startswith("importance second") for name in whole[0])
