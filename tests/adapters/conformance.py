"""One pair of tasks through every adapter: what a subject is, and which results must be equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

BATCH, BATCHES, EPOCHS = 8, 8, 2
CLASSES = {"first": 3, "second": 5}
SPECS: dict[str, dict[str, Any]] = {
    "hat": {"adjustment": {"mode": "hat"}},
    "fg_adahat": {
        "adjustment": {"mode": "fg_adahat", "intensity": 0.1},
        "importance": {"type": "input_weight_gradient_square_sum_x_activation_abs"},
    },
    "preset": fh.preset("hat", tasks=2).model_dump(),
    "epochs": {"gates": {"annealing": "epoch"}},
}


@dataclass(frozen=True)
class Variant:
    """How the tasks are trained.

    Attributes:
        accumulate: Batches of one step.
        clip: Largest norm of the gradients, None leaves them.
        dtype: Type of the forward, by autocast.
        scaled: Whether the loss is scaled against underflow.
    """

    accumulate: int = 1
    clip: float | None = None
    dtype: torch.dtype = torch.float32
    scaled: bool = False


VARIANTS = {
    "plain": Variant(),
    "accumulation": Variant(accumulate=4),
    "clipping": Variant(clip=0.5),
    "clipping and accumulation": Variant(accumulate=4, clip=0.5),
    "bfloat16": Variant(dtype=torch.bfloat16),
    "float16": Variant(dtype=torch.float16, scaled=True, clip=0.5),
}


class Net(nn.Module):
    """A small network that returns its loss if labels are given, like the models of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(8 * 9, 16), nn.Linear(16, CLASSES["first"])
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        h = F.max_pool2d(self.relu(self.norm(self.conv(x))), 2)
        logits = self.head(self.relu(self.hidden(h.flatten(1)))).float()
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


@dataclass
class Job:
    """What a subject trains: one task, `EPOCHS` epochs in the loader's order, AdamW of `groups`."""

    session: fh.Session
    task: str
    variant: Variant
    data: TensorDataset

    @property
    def model(self) -> Net:
        """The bare model."""
        model = self.session.model
        assert isinstance(model, Net)
        return model

    @property
    def device(self) -> str:
        """Kind of device that the model is on."""
        return next(self.model.parameters()).device.type

    def loader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Make the loader."""
        return DataLoader(self.data, batch_size=BATCH)

    def optimizer(self) -> AdamW:
        """Make the optimizer, when the task's head is there.

        One group a parameter, in the model's order: a norm of all gradients depends on the order in its last bit, and
        some trainers go by the model, others by the groups.
        """
        groups = self.session.parameter_groups(lr=3e-3, gate_lr=3e-2, weight_decay=0.1)
        options = {id(p): group for group in groups for p in group["params"]}
        return AdamW([{**options[id(p)], "params": [p]} for p in self.model.parameters() if id(p) in options])


class Subject(Protocol):
    """One adapter: trains a job with its framework, or raises `CannotRun` for a variant."""

    def __call__(self, job: Job, /) -> None:
        """Train."""


class CannotRun(Exception):  # noqa: N818 - not an error of anybody's
    """The subject's framework does not support a variant on this device; the message gives the reason."""


@dataclass
class RunResult:
    """The results of two tasks."""

    state: dict[str, Tensor]
    masks: dict[str, dict[str, Tensor]]
    importance: dict[str, dict[str, Tensor]]
    logits: dict[str, Tensor]

    def differing(self, other: RunResult) -> list[str]:
        """Return the names of values that are not bit-identical."""
        mine, theirs = self._all(), other._all()
        assert mine.keys() == theirs.keys()
        return [name for name, value in mine.items() if not torch.equal(value, theirs[name])]

    def _all(self) -> dict[str, Tensor]:
        found = {f"weight {name}": value for name, value in self.state.items()}
        for kind, tasks in (("mask", self.masks), ("importance", self.importance)):
            found |= {f"{kind} of {t}: {n}": v for t, layers in tasks.items() for n, v in layers.items()}
        return found | {f"logits of {task}": value for task, value in self.logits.items()}


def run(subject: Callable[[Job], None], spec: str, variant: Variant, device: str = "cpu") -> RunResult:
    """Learn both tasks through a subject; skip the test if it raises `CannotRun`."""
    torch.manual_seed(0)
    model = Net().to(device)
    probe = torch.randn(16, 2, 6, 6, device=device)
    session = fh.attach(model, SPECS[spec], {"x": probe[:2]})
    result = RunResult({}, {}, {}, {})
    for number, (task, classes) in enumerate(CLASSES.items()):
        data = torch.Generator().manual_seed(number)
        x = torch.randn(BATCH * BATCHES, 2, 6, 6, generator=data).to(device)
        y = torch.randint(0, classes, (BATCH * BATCHES,), generator=data).to(device)
        torch.manual_seed(10 + number)  # of the new embeddings and heads
        try:
            subject(Job(session, task, variant, TensorDataset(x, y)))
        except CannotRun as reason:
            pytest.skip(str(reason))
        result.masks[task], result.importance[task] = session.masks(task), session.importance(task)
    result.state = {name: value.clone() for name, value in model.state_dict().items()}
    model.__dict__.pop("forward", None)  # Accelerate leaves its autocast there
    model.eval()
    for task in CLASSES:
        with torch.no_grad(), session.use(task):
            result.logits[task] = model(probe)["logits"]
    session.detach()
    return result
