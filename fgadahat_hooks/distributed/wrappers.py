"""Checks that a model is not wrapped, compiled or sharded before it is attached."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from fgadahat_hooks.errors import BadCallError


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse a model that is wrapped for parallel training or compiled, or whose parameters are sharded.

    Raises:
        BadCallError: It is; the message names what to attach to instead.
    """
    kind = type(model).__name__
    if isinstance(model, DistributedDataParallel | DataParallel) or kind == "FullyShardedDataParallel":
        raise BadCallError(
            f"Expected the model itself, but got it wrapped in {kind}. Attach to the inner model (`wrapped.module`) "
            "and wrap it afterwards, inside the task."
        )
    if kind == "OptimizedModule":
        raise BadCallError(
            "Expected the model itself, but got what torch.compile returned. Attach to the model, then compile it."
        )
    refuse_sharded(model.named_parameters())


def refuse_sharded(parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse parameters that are sharded over devices: gates and rates need whole units.

    Raises:
        BadCallError: Some are; the message names the first.
    """
    found = sharded_names(parameters)
    if found:
        raise BadCallError(
            f"Expected parameters that are whole on every rank, but got {len(found)} DTensor(s), first "
            f"'{found[0]}'. FSDP2 (`fully_shard`) and tensor parallelism are not supported. Use "
            "DistributedDataParallel."
        )


def sharded_names(parameters: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the parameters that are sharded over devices (DTensors)."""
    return [name for name, parameter in parameters if getattr(parameter, "device_mesh", None) is not None]
