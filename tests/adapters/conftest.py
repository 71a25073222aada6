"""What the tests of the adapters share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_collections() -> Iterator[None]:
    """Speed up the garbage collection that Accelerate runs at each task: skip objects that exist already."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
