"""DistributedDataParallel: all processes learn the same tasks, and none forgets.

Three tasks of scikit-learn's digits on a small convolutional network. The loop is an ordinary DDP loop, but the wrapper
is built inside the task, because every task has its own head. Each process checks its own logits; the first one prints
the table.

Run it with `torchrun --nproc-per-node 2 examples/torchrun_ddp.py`.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import fgadahat_hooks as fh

TASKS = {"small digits": (0, 1, 2), "middle digits": (3, 4, 5), "large digits": (6, 7, 8, 9)}


def load(classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return images `(n, 1, 8, 8)` and labels counted within the task."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    return images, torch.searchsorted(torch.tensor(classes), target[keep])


def network() -> nn.Module:
    """Return any model; it needs no code for tasks or processes."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def learn(session: fh.Session, name: str, device: torch.device, epochs: int) -> None:
    """Learn one task on this process's share of every batch."""
    classes = TASKS[name]
    data = TensorDataset(*load(classes))
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(data)
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    with session.task(name, num_classes=len(classes)) as task:
        model = DistributedDataParallel(session.model, [device] if device.type == "cuda" else None)
        optimizer = torch.optim.AdamW(session.parameter_groups(lr=2e-3, weight_decay=0.05))
        task.protect(optimizer)
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            model.train()
            for x, y in task.batches(loader):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x.to(device)), y.to(device)) + task.regularization()
                loss.backward()
                optimizer.step()


def logits(session: fh.Session, name: str, device: torch.device) -> Tensor:
    """Return the logits of all images of a task; every process computes its own."""
    session.model.eval()
    with torch.no_grad(), session.use(name):
        out: Tensor = session.model(load(TASKS[name])[0].to(device))
    return out


def everywhere(here: bool, device: torch.device) -> bool:
    """Return whether something holds on every process."""
    flag = torch.tensor(float(here), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def main() -> None:
    """Learn the tasks one after another."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits on several processes.")
    parser.add_argument("--tasks", type=int, default=len(TASKS), help="how many tasks")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each")
    options = parser.parse_args()

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(rank)  # processes may have different seeds
    spec = fh.preset("hat", tasks=len(TASKS))
    session = fh.attach(network().to(device), spec, example_inputs=torch.zeros(2, 1, 8, 8, device=device))

    names = list(TASKS)[: options.tasks]
    learnt = {}
    for name in names:
        learn(session, name, device, options.epochs)
        learnt[name] = logits(session, name, device)

    if rank == 0:
        print(f"{'task':16}{'when learnt':>13}{'at the end':>13}")
    same = True
    for name in names:
        after, labels = logits(session, name, device), load(TASKS[name])[1].to(device)
        same = same and torch.equal(learnt[name], after)
        then, now = ((out.argmax(1) == labels).float().mean() for out in (learnt[name], after))
        if rank == 0:
            print(f"{name:16}{then:>13.1%}{now:>13.1%}")
    same = everywhere(same, device)
    if rank == 0:
        print(f"earlier tasks bit-identical on all {dist.get_world_size()} processes:", "yes" if same else "no")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
