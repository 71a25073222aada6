"""One session for all tests that do not change it."""

from __future__ import annotations

import pytest
import torch

import fgadahat_hooks as fh
from tests.verify.sessions import learnt


@pytest.fixture(scope="module")
def session() -> fh.Session:
    torch.manual_seed(0)
    return learnt()
