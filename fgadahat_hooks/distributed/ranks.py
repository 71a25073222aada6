"""Collectives for several processes that train one model: a weighted mean, a broadcast and a check for equality.

All work on the default process group; without one, or with a single process, they do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import RanksDifferError

_SHOWN = 5
"""How many tensor names an error lists."""


def is_distributed() -> bool:
    """Return whether this process is one of several in a process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_rank() -> bool:
    """Return whether this is the only process, or the first of several."""
    return not is_distributed() or dist.get_rank() == 0


def mean_over_ranks(values: Tensor, samples: float, data: Any = None) -> Tensor:
    """Return the mean of a vector over the ranks, weighted by each rank's number of samples: one `all_reduce`.

    The sum is in double precision, so that a value that is the same on all ranks keeps its bits.

    Args:
        values: A vector, of the same length on every rank.
        samples: Number of samples that this rank's values come from; 0 if unknown.
        data: A batch, whose samples are counted if `samples` is 0.
    """
    if not is_distributed():
        return values
    weight = samples or _batch_size(data)
    weighted = torch.cat([values.double() * weight, torch.full_like(values[:1], weight, dtype=torch.double)])
    total = weighted.to(_device(weighted))
    dist.all_reduce(total)
    return (total[:-1] / total[-1]).to(values)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a vector over the ranks: one `all_reduce`; the vector itself in a single process."""
    if not is_distributed():
        return values
    total = values.to(_device(values), copy=True)
    dist.all_reduce(total)
    return total.to(values.device)


def _batch_size(data: Any) -> int:
    """Return the length of the first tensor of a batch, 1 if there is none."""
    first = next((t for t in pytree.tree_leaves(data) if isinstance(t, Tensor) and t.dim() > 0), None)
    return 1 if first is None else max(1, first.shape[0])


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Copy the first rank's values into the tensors of all ranks, in place: one `broadcast`."""
    if not is_distributed():
        return
    tensors = list(tensors)
    if not tensors:
        return
    parts = [_bytes(t) for t in tensors]
    device = _device(parts[0])
    joined = torch.cat([part.to(device) for part in parts])
    dist.broadcast(joined, src=0)
    with torch.no_grad():
        for tensor, part in zip(tensors, joined.split([p.numel() for p in parts]), strict=True):
            tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))


def check_equal(values: Mapping[str, Tensor | None], what: str, remedy: str) -> None:
    """Compare tensors across ranks by the sum of their bits: one `all_gather` of one number per tensor.

    All ranks compare the same numbers, so that either all of them raise or none does.

    Args:
        values: The same names on every rank; None is equal only to None.
        what: What the tensors are, in the plural, for the message.
        remedy: What the user can do, for the message.

    Raises:
        RanksDifferError: Some tensors differ; the message names them.
    """
    if not is_distributed() or not values:
        return
    mine = torch.stack([_digest(value).cpu() for value in values.values()])
    mine = mine.to(_device(mine))
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    differ = (torch.stack(gathered) != gathered[0]).any(0).tolist()
    names = [name for name, other in zip(values, differ, strict=True) if other]
    if names:
        shown = ", ".join(f"'{name}'" for name in names[:_SHOWN]) + (" and others" if len(names) > _SHOWN else "")
        raise RanksDifferError(
            f"Expected the same {what} on all {len(gathered)} ranks, but {len(names)} of {len(values)} differ: "
            f"{shown}. {remedy}"
        )


# ------------------------------------------------------------------ bits
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _digest(value: Tensor | None) -> Tensor:
    """Return the sum of a tensor's bits read as integers; integer sums do not depend on their order."""
    if value is None:
        return torch.tensor(-1)
    dense = value.detach().coalesce().values() if value.is_sparse else value.detach()
    real = torch.view_as_real(dense) if dense.is_complex() else dense
    return real.contiguous().view(-1).view(_INTEGERS[real.element_size()]).sum(dtype=torch.int64)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _device(tensor: Tensor) -> torch.device:
    """Return a device on which the process group can use a tensor: NCCL cannot use CPU tensors."""
    if tensor.device.type == "cpu" and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return tensor.device
