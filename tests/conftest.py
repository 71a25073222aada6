"""What every test gets: one thread, a fixed seed, and torch's global settings as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.support.ranks import Ranks

torch.set_num_threads(1)

SEED = 0


@pytest.fixture(autouse=True)
def seeded() -> int:
    """Seed torch before each test, so that a test gives the same numbers alone and in company."""
    torch.manual_seed(SEED)
    return SEED


@pytest.fixture(autouse=True)
def torch_globals() -> Iterator[None]:
    """Put back the settings that a test may change."""
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    grad = torch.is_grad_enabled()
    yield
    torch.set_default_dtype(dtype)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_grad_enabled(grad)


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Give two processes in one process group, which start when they are first used."""
    with Ranks(tmp_path_factory.mktemp("ranks")) as processes:
        yield processes


@pytest.fixture
def generator() -> torch.Generator:
    """Give a generator of its own, so that drawing does not touch torch's global one."""
    return torch.Generator().manual_seed(SEED)
