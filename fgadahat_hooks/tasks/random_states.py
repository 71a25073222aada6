"""The state of every global random number generator, as plain data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """Return the states of torch (CPU and CUDA), of Python's `random` and of numpy's global generator."""
    version, key, gauss = random.getstate()
    name, words, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else [],
        "python": {"version": version, "key": _to_tensor(key), "gauss": gauss},
        "numpy": {"name": name, "key": _to_tensor(words), "rest": rest},
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned; states of devices that this machine does not have are ignored."""
    torch.set_rng_state(state["torch"])
    for device, value in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(value, device)
    python, other = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(_to_words(python["key"]).tolist()), python["gauss"]))
    np.random.set_state((other["name"], _to_words(other["key"]), *other["rest"]))


def _to_tensor(words: Any) -> Tensor:
    """Return words of 32 bits as a tensor; as int32, because torch has few operations on uint32."""
    return torch.from_numpy(np.array(words, dtype=np.uint32).view(np.int32))


def _to_words(tensor: Tensor) -> Any:
    return tensor.numpy().view(np.uint32)
