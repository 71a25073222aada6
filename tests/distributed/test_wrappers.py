"""Wrapped and compiled models are refused with a remedy; a process group of one does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError
from tests.support.small import mlp


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """Make this process the only one of a process group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class FullyShardedDataParallel(nn.Module):
    """Stands for the first version of FSDP, which cannot be constructed without an accelerator."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_data_parallel_models_are_refused(group_of_one: None) -> None:
    for wrap in (DistributedDataParallel, DataParallel, FullyShardedDataParallel):
        model = mlp(4, 5, 3)
        with pytest.raises(BadCallError) as caught:
            fh.attach(wrap(model))
        assert str(caught.value) == (
            f"Expected the model itself, but got it wrapped in {wrap.__name__}. Attach to the inner model "
            "(`wrapped.module`) and wrap it afterwards, inside the task."
        )
        fh.attach(model, {}, torch.randn(2, 4, dtype=torch.float64)).detach()


def test_compiled_models_are_refused() -> None:
    compiled: Any = torch.compile(mlp(4, 5, 3), backend="eager")
    with pytest.raises(BadCallError, match=r"what torch\.compile returned. Attach to the model, then"):
        fh.attach(compiled)


def test_a_group_of_one_calls_no_collectives(group_of_one: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "all_gather", "broadcast"):
        monkeypatch.delattr(dist, name)
    session = fh.attach(mlp(4, 5, 3), {}, torch.randn(2, 4, dtype=torch.float64))
    with session.task("a"):
        pass
    assert session.tasks == ("a",)
