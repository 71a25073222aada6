"""What other processes do to a folder: fifty are killed, one finds the disk full, two save at once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.tree import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what `children.py` saw; one process does it all, for the import of torch is the most of it."""
    command = [sys.executable, "-m", "tests.faults.children", str(tmp_path_factory.mktemp("children"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_kill_at_any_point_loses_at_most_the_save_it_hit(report: dict[str, Any]) -> None:
    found = dict(report["kills"])
    assert found.pop("kills") == 50
    assert found.pop("runs") >= 1  # a whole one, so that the kills were spread over all of a run
    assert found.pop("leftovers") >= 10  # kills in the middle of a save, which the next one cleaned
    assert found == {"wrong": [], "same": True, "clean": True}


def test_a_disk_that_is_full_keeps_the_save_before(report: dict[str, Any]) -> None:
    assert report["full disk"] == {"errors": ["CheckpointError", "CheckpointError"], "kept": True, "files": 3}


def test_two_that_save_at_once_never_make_a_mix(report: dict[str, Any]) -> None:
    found = dict(report["race"])
    assert found.pop("seen") >= 2
    assert found == {"mixed": 0, "codes": [0, 0], "files": 3}
