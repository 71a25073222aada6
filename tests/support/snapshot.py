"""Everything there is to see on a model, as one comparable value."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from fgadahat_hooks.protection.guard import OptimizerGuard

Seen = dict[str, Any]


def snapshot(model: nn.Module, *, global_hooks: bool = True) -> Seen:
    """Return all attributes of all modules: tensors by identity and content, hooks and other objects by identity.

    To look at the hooks that act everywhere, sessions thrown away have to be collected first, which takes its time.
    """
    seen: Seen = {}
    for name, module in model.named_modules():
        seen[f"{name}: class"] = (type(module), type(module).forward, id(module))
        for key, value in module.__dict__.items():
            seen[f"{name}: {key}"] = _seen(value)
    return seen | _global_hooks() if global_hooks else seen


def differences(before: Seen, after: Seen) -> list[str]:
    """Return the names of what is not as before."""
    return [key for key in {**before, **after} if key not in before or key not in after or before[key] != after[key]]


def _seen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (id(value), value.requires_grad, value.grad is None, tuple(value.stride()), content(value))
    if isinstance(value, Mapping):
        return type(value), [(key, _seen(v)) for key, v in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value), [_seen(v) for v in value]
    if isinstance(value, str | int | float | torch.dtype | None):
        return value
    return id(value)


def content(value: Tensor) -> tuple[Any, ...]:
    """Return type, shape and a digest of the bytes of a tensor."""
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8) if value.numel() else value.new_zeros(0)
    return value.dtype, tuple(value.shape), hashlib.blake2b(data.numpy().tobytes(), digest_size=16).hexdigest()


def _global_hooks() -> Seen:
    """Return the hooks that act on every optimizer and every module, those of sessions thrown away left out."""
    gc.collect()
    OptimizerGuard._sweep()
    pre = torch_optimizer._global_optimizer_pre_hooks
    post = torch_optimizer._global_optimizer_post_hooks
    kinds = [n for n in vars(nn.modules.module) if n.startswith("_global") and n.endswith("hooks")]
    found = {f"torch: {n}": list(getattr(nn.modules.module, n).items()) for n in kinds}
    return {**found, "torch: before steps": list(pre.values()), "torch: after steps": list(post.values())}
