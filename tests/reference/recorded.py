"""The recorded numbers of the published code in `tests/fixtures`, by the names in their README."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SETS = ("mlp_small", "mlp_mid", "mlp_mid_afi")
LAYERS = (0, 1, 2)
FOLDER = Path(__file__).parent.parent / "fixtures"


class Recorded:
    """One recorded set."""

    def __init__(self, name: str) -> None:
        """Read both files of the set."""
        self.arrays: dict[str, np.ndarray[Any, Any]] = dict(np.load(FOLDER / f"{name}.npz"))
        self.settings: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))

    def tensor(self, key: str) -> Tensor:
        """Return the array `key`, with `/` as in the README, in double precision (labels as integers)."""
        array = torch.from_numpy(np.array(self.arrays[key.replace("/", "__")]))
        return array if key.endswith("_y") else array.double()

    def layers(self, key: str) -> list[Tensor]:
        """Return `key0`, `key1`, `key2`."""
        return [self.tensor(f"{key}{i}") for i in LAYERS]


@cache
def recorded(name: str) -> Recorded:
    """Return a set, read once."""
    return Recorded(name)
