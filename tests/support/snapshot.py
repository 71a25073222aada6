"""All attributes of a model and its modules, as one comparable value."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from fgadahat_hooks.protection.guard import OptimizerGuard

Snapshot = dict[str, Any]


def snapshot(model: nn.Module, *, global_hooks: bool = True) -> Snapshot:
    """Return all attributes of all modules: tensors by identity and content, hooks and other objects by identity.

    With `global_hooks`, also the hooks on all modules and optimizers; discarded sessions are garbage-collected first,
    which takes time.
    """
    values: Snapshot = {}
    for name, module in model.named_modules():
        values[f"{name}: class"] = (type(module), type(module).forward, id(module))
        for key, value in module.__dict__.items():
            values[f"{name}: {key}"] = _comparable(value)
    return values | _global_hooks() if global_hooks else values


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the keys whose values differ."""
    return [key for key in {**before, **after} if key not in before or key not in after or before[key] != after[key]]


def _comparable(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (id(value), value.requires_grad, value.grad is None, tuple(value.stride()), content(value))
    if isinstance(value, Mapping):
        return type(value), [(key, _comparable(v)) for key, v in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value), [_comparable(v) for v in value]
    if isinstance(value, str | int | float | torch.dtype | None):
        return value
    return id(value)


def content(value: Tensor) -> tuple[Any, ...]:
    """Return dtype, shape and a digest of the bytes of a tensor."""
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8) if value.numel() else value.new_zeros(0)
    return value.dtype, tuple(value.shape), hashlib.blake2b(data.numpy().tobytes(), digest_size=16).hexdigest()


def _global_hooks() -> Snapshot:
    """Return the hooks on every optimizer and every module, without those of discarded sessions."""
    gc.collect()
    OptimizerGuard._remove_orphans()
    pre = torch_optimizer._global_optimizer_pre_hooks
    post = torch_optimizer._global_optimizer_post_hooks
    kinds = [n for n in vars(nn.modules.module) if n.startswith("_global") and n.endswith("hooks")]
    found = {f"torch: {n}": list(getattr(nn.modules.module, n).items()) for n in kinds}
    return {**found, "torch: before steps": list(pre.values()), "torch: after steps": list(post.values())}
