"""What the tests of the adapters share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.adapters.ranks import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Give two processes in one group."""
    with Ranks(tmp_path_factory.mktemp("ranks")) as started:
        yield started


@pytest.fixture(scope="package", autouse=True)
def quick_collections() -> Iterator[None]:
    """Accelerate collects garbage at each task; let it not look at the modules of all trainers every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
