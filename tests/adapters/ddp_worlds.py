"""What each rank runs in the DDP tests; every function takes its rank first and returns plain tensors."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import FgadahatError
from fgadahat_hooks.importance.base import LayerView

STEPS, SHARE = 3, 4
"""Steps of a task, and samples of one rank's batch."""
SCALED = {
    "adjustment": {"mode": "fg_adahat", "intensity": 0.1},
    "importance": {"type": "input_weight_gradient_square_sum_x_activation_abs"},
}


def normed(classes: int = 3) -> nn.Sequential:
    """Return a network with running statistics."""
    body = [nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8 * 16, 16), nn.ReLU(), nn.Linear(16, classes))


def simple() -> nn.Sequential:
    """Return a network in double precision in which samples do not affect each other."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    ).double()


def images(count: int, seed: int) -> Tensor:
    """Draw `(count, 2, 4, 4)` noise."""
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def batch(task: int, step: int, rows: slice, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return some rows of a step's global batch."""
    labels = torch.arange(2 * SHARE) % classes
    return images(2 * SHARE, 10 * task + step)[rows].to(dtype), labels[rows]


def mine(rank: int) -> slice:
    """Return a rank's rows of a global batch."""
    return slice(rank * SHARE, (rank + 1) * SHARE)


def train(
    session: fh.Session,
    model: nn.Module,
    task: fh.Task,
    optimizer: Optimizer,
    number: int,
    rows: slice,
    classes: int = 3,
) -> None:
    """Make the steps of one task through a model, wrapped or not."""
    dtype = next(session.model.parameters()).dtype
    model.train()
    for x, y in task.batches([batch(number, step, rows, classes, dtype) for step in range(STEPS)]):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + task.regularization()).backward()
        optimizer.step()


def logits(session: fh.Session, task: str, model: nn.Module | None = None) -> Tensor:
    """Return the evaluation logits of a finished task on the same images everywhere."""
    session.model.eval()
    dtype = next(session.model.parameters()).dtype
    with torch.no_grad(), session.use(task):
        out: Tensor = (model or session.model)(images(6, 99).to(dtype))
    return out


def kept(session: fh.Session) -> dict[str, Tensor]:
    """Return the records of finished tasks, and the model."""
    found = {f"model {name}": value.clone() for name, value in session.model.state_dict().items()}
    for task in session.tasks:
        found |= {f"mask {task} {n}": v for n, v in session.masks(task).items()}
        found |= {f"importance {task} {n}": v for n, v in session.importance(task).items()}
        found |= {f"own {task} {n}": v for n, v in session._sequence.state.record(task).tensors.items()}
    return found


# ------------------------------------------------------------------ what ranks do
def three_tasks(rank: int, spec: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Learn three tasks with AdamW, weight decay and heads of three sizes; also name the tasks that changed."""
    session = fh.attach(normed(), spec, images(2, 0))
    ended = {}
    for number, classes in enumerate((3, 5, 4)):
        name = f"task {number}"
        with session.task(name, num_classes=classes) as task:
            model = DistributedDataParallel(session.model)
            optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2, gate_lr=1e-2, weight_decay=0.1)))
            train(session, model, task, optimizer, number, mine(rank), classes)
        ended[name] = logits(session, name)
    return kept(session), [n for n, before in ended.items() if not torch.equal(before, logits(session, n))]


def global_batch(rank: int, wrapped: bool) -> dict[str, Tensor]:
    """Learn two tasks, each rank on its half of every batch, or all of it in one process."""
    torch.manual_seed(7)
    session = fh.attach(simple(), SCALED, images(2, 0).double())
    for number in range(2):
        torch.manual_seed(8 + number)
        with session.task(f"task {number}") as task:
            model = DistributedDataParallel(session.model) if wrapped else session.model
            optimizer = task.protect(SGD(session.parameter_groups(lr=0.1, gate_lr=0.05)))
            train(session, model, task, optimizer, number, mine(rank) if wrapped else slice(None))
    return kept(session)


def begun(rank: int) -> dict[str, Tensor]:
    """Return what a second task begins with, before anything is wrapped."""
    session = fh.attach(normed(), {}, images(2, 0))
    with session.task("first") as task:
        model = DistributedDataParallel(session.model)
        train(session, model, task, task.protect(SGD(session.parameter_groups(lr=0.01))), 0, mine(rank))
    with session.task("second", num_classes=5):
        found = {n: p.detach().clone() for n, p in session.model.named_parameters() if "embedding" in n or n[0] == "6"}
        found |= {n: b.clone() for n, b in session.model.named_buffers()}
    return found


def certified(rank: int) -> tuple[dict[str, str], tuple[Any, ...]]:
    """Return the digests of a first task, and what an audit after a second says of it."""
    session = fh.attach(normed(), {}, images(2, 0))
    for number in range(2):
        with session.task(f"task {number}") as task:
            model = DistributedDataParallel(session.model)
            optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.1)))
            train(session, model, task, optimizer, number, mine(rank))
        certificate = session.certificate or session.certify(images(3, 99))
    found, report = certificate.tasks["task 0"], session.audit()
    return {**found.outputs, **found.tensors}, (report.tasks, report.uncertified, report.outputs)


class Poisoned(fh.Measure):
    """A measure that is not finite on the second rank alone."""

    needs = frozenset({"weight"})

    def compute(self, view: LayerView) -> Tensor:
        value = view.weight.detach().abs().flatten(1).sum(1)
        return value * float("nan") if dist.get_rank() == 1 else value


def failing_training(rank: int, how: str) -> tuple[str, list[Any], float]:
    """Train with an error; return the error, the finished tasks, and whether the group still works."""
    spec: dict[str, Any] = SCALED
    if how == "poisoned":
        fh.register_measure("poisoned")(Poisoned)
        spec = {"importance": {"type": "poisoned"}, "adjustment": {"mode": "fg_adahat"}}
    session = fh.attach(normed(), spec, images(2, 0))
    early = DistributedDataParallel(session.model) if how == "wrapped too early" else None
    error = ""
    try:
        with session.task("a", num_classes=3 if early is None else 5) as task:
            model = session.model if how == "not wrapped" else early or DistributedDataParallel(session.model)
            train(session, model, task, task.protect(SGD(session.parameter_groups(lr=0.01))), 0, mine(rank))
            if how == "drifted":
                with torch.no_grad():
                    session.model.get_parameter("4.weight").add_(1e-4 * rank)
    except FgadahatError as caught:
        error = f"{type(caught).__name__}: {caught}"
    alive = torch.ones(1)
    dist.all_reduce(alive)
    return error, list(session.tasks), float(alive)


def rates(rank: int) -> dict[str, Tensor]:
    """Return the weights after two tasks with random rates."""
    session = fh.attach(simple(), {"adjustment": {"mode": "hat_random"}}, images(2, 0).double())
    for number in range(2):
        with session.task(f"task {number}") as task:
            model = DistributedDataParallel(session.model)
            optimizer = task.protect(SGD(session.parameter_groups(lr=0.1)))
            train(session, model, task, optimizer, number, mine(rank))
    return kept(session)


def collectives(rank: int) -> dict[str, int]:
    """Count the collectives of a task of `STEPS` steps, without those of DDP itself."""
    counts = dict.fromkeys(("all_reduce", "all_gather", "broadcast"), 0)
    real = {name: getattr(dist, name) for name in counts}

    def counted(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return real[name](*args, **kwargs)

        return call

    session = fh.attach(normed(), SCALED, images(2, 0))
    try:
        for name in counts:
            setattr(dist, name, counted(name))
        with session.task("a") as task:
            model = DistributedDataParallel(session.model)
            train(session, model, task, task.protect(SGD(session.parameter_groups(lr=0.01))), 0, mine(rank))
    finally:
        for name, function in real.items():
            setattr(dist, name, function)
    return counts


def sharded(rank: int) -> list[str]:
    """Return the errors of attach, protect and a step for a model sharded by `fully_shard`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    messages = []
    try:
        already = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        fully_shard(already, mesh=mesh)
        fh.attach(already)
    except FgadahatError as caught:
        messages.append(str(caught))
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    session = fh.attach(model, {}, torch.randn(2, 4))
    try:
        with session.task("a") as task:
            before = task.protect(SGD(session.parameter_groups(lr=0.1)))
            fully_shard(model, mesh=mesh)
            try:
                task.protect(SGD(model.parameters(), lr=0.1))
            except FgadahatError as caught:
                messages.append(str(caught))
            task.anneal(1, 1)
            before.step()
    except FgadahatError as caught:
        messages.append(str(caught))
    return messages
