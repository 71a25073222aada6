"""What a run is made of: everything that changes its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Kind = Literal["finetune", "independent", "joint", "frozen", "gates"]
Schedule = Literal["constant", "half", "linear"]

FORMAT = 1
"""Part of every run's key; raise it when the code changes what a run with the same settings gives."""


@dataclass(frozen=True)
class Recipe:
    """How a method trains.

    Attributes:
        kind: Without gates one after the other, each task alone, all tasks together, or a random network that stays as
            it is but for gains, biases and a head of each task; or with gates.
        lr: Learning rate of the weights.
        gate_lr: Learning rate of the task embeddings.
        schedule: Of the weights' learning rate within a task: constant, constant for the first half and then linear to
            0, or linear to 0.
        optimizer: `adam` or `sgd`, a fresh one for each task.
        spec: What `fgadahat_hooks.attach` is given.
        norm: Whether the network has a BatchNorm behind each hidden layer.
        width: Part of the hidden layers' width that the network has.
    """

    kind: Kind = "gates"
    lr: float = 1e-3
    gate_lr: float | None = None
    schedule: Schedule = "constant"
    optimizer: Literal["adam", "sgd"] = "adam"
    spec: Mapping[str, Any] = field(default_factory=dict)
    norm: bool = False
    width: float = 1.0

    @property
    def by_share(self) -> bool:
        """Whether units are given by share, and not learnt."""
        return bool(self.spec.get("gates", {}).get("choose") == "share")

    def but(self, **changes: Any) -> Recipe:
        """Return the same recipe with other values; blocks of the spec are merged."""
        if "spec" in changes:
            blocks = dict(self.spec)
            for name, block in changes["spec"].items():
                blocks[name] = {**blocks.get(name, {}), **block}
            changes["spec"] = blocks
        return replace(self, **changes)

    def make_optimizer(self, groups: Any) -> Optimizer:
        """Return a fresh optimizer."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.lr)
        return torch.optim.Adam(groups, lr=self.lr, fused=True)

    def make_schedule(self, optimizer: Optimizer, steps: int) -> LambdaLR:
        """Return the schedule of the first group, the weights; embeddings keep their rate."""

        def factor(step: int) -> float:
            left = 1 - step / steps
            if self.schedule == "constant":
                return 1.0
            return left if self.schedule == "linear" else min(1.0, 2 * left)

        still = [lambda step: 1.0] * (len(optimizer.param_groups) - 1)
        return LambdaLR(optimizer, [factor, *still])


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        stream: Letter of the stream.
        method: Name of the method, for tables; not part of the key.
        seed: Of the images, permutations, order and initial weights.
        recipe: How it trains.
        validate: Hold out a tenth of the training images and judge on it, never on test images.
        tasks: Only so many tasks of the stream; None for all.
    """

    stream: str
    method: str
    seed: int
    recipe: Recipe
    validate: bool = False
    tasks: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the result; of the network's shape only what is not the stream's own."""
        values = asdict(self)
        del values["method"]
        plain = Recipe()
        for name in ("norm", "width"):  # runs made before these fields keep their keys
            if values["recipe"][name] == getattr(plain, name):
                del values["recipe"][name]
        return {"format": FORMAT, **values}

    @property
    def key(self) -> str:
        """Name of the run's file."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
