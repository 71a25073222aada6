"""What a gated, protected, measured training step costs, relative to the plain one.

Variants add one part each: gates, the sparsity term, update protection, an importance measure. All train the same
model on the same batch with SGD with momentum, in one process, interleaved; the table shows ratios of medians. Run it
with `make bench`.
"""

from __future__ import annotations

import argparse
import copy
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

import fgadahat_hooks as fh
from benchmarks.timing import medians

FG = fh.preset("fg_adahat", tasks=5).adjustment
MEASURE = "input_weight_abs_sum"


@dataclass(frozen=True)
class Problem:
    """A model and its batch."""

    name: str
    model: Callable[[], nn.Module]
    x: Tensor
    y: Tensor


def problems() -> list[Problem]:
    """Return the two models of the table."""
    torch.manual_seed(0)
    mlp = Problem("MLP 784-512-512-10, batch 128", make_mlp, torch.randn(128, 784), torch.randint(0, 10, (128,)))
    image = torch.randn(32, 3, 64, 64)
    cnn = Problem("ResNet-18, 64x64, batch 32", lambda: resnet18(num_classes=10), image, torch.randint(0, 10, (32,)))
    return [mlp, cnn]


def make_mlp() -> nn.Module:
    """Return the MLP."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def make_optimizer(name: str, groups: Any) -> torch.optim.Optimizer:
    """Return a fresh optimizer."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
    return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)


def plain(problem: Problem, optimizer: str) -> Callable[[], None]:
    """Return one step of the user's own loop."""
    model = problem.model()
    opt = make_optimizer(optimizer, model.parameters())

    def step() -> None:
        opt.zero_grad()
        F.cross_entropy(model(problem.x), problem.y).backward()
        opt.step()

    return step


def gated(problem: Problem, optimizer: str, spec: dict[str, Any], *, regularize: bool, tasks: int = 1) -> Any:
    """Return one step of a later task on an attached model."""
    model = problem.model()
    callbacks = None if "callbacks" not in spec else spec.pop("callbacks")
    session = fh.attach(model, spec, problem.x[:1], callbacks=callbacks)
    for number in range(tasks):
        with session.task(number) as task:
            one_step(session, task, problem, optimizer)
    task = session.task("measured").__enter__()
    opt = task.protect(make_optimizer(optimizer, session.parameter_groups(lr=1e-3)))

    def step() -> None:
        opt.zero_grad()
        task.begin_batch(5, 10, (problem.x, problem.y))
        loss = F.cross_entropy(model(problem.x), problem.y)
        if regularize:
            loss = loss + task.regularization()
        loss.backward()
        opt.step()
        task.end_batch()

    return step


def one_step(session: fh.Session, task: fh.Task, problem: Problem, optimizer: str) -> None:
    """Train a finished task for one step, so that masks and importances exist."""
    opt = task.protect(make_optimizer(optimizer, session.parameter_groups(lr=1e-3)))
    task.begin_batch(1, 1, (problem.x, problem.y))
    F.cross_entropy(session.model(problem.x), problem.y).backward()
    opt.step()


def variants(problem: Problem, optimizer: str) -> dict[str, Callable[[], None]]:
    """Return the steps of the table."""
    full = {"importance": {"type": MEASURE}, "adjustment": FG.model_dump()}
    return {
        "plain": plain(problem, optimizer),
        "+ gates": gated(problem, optimizer, {"callbacks": []}, regularize=False),
        "+ sparsity term": gated(problem, optimizer, {"callbacks": []}, regularize=True),
        "+ HAT, updates protected": gated(problem, optimizer, {"adjustment": {"mode": "hat"}}, regularize=True),
        "+ FG-AdaHAT, all of it": gated(problem, optimizer, copy.deepcopy(full), regularize=True),
        "the same after 8 tasks": gated(problem, optimizer, copy.deepcopy(full), regularize=True, tasks=8),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adamw"])
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for problem in problems():
        if options.only not in problem.name:
            continue
        for optimizer in options.optimizers:
            times = medians(
                variants(problem, optimizer), options.rounds if "ResNet" in problem.name else 5 * options.rounds
            )
            base = times["plain"]
            print(f"\n{problem.name}, {optimizer} (plain step {1000 * base:.1f} ms)")
            for name, seconds in times.items():
                print(f"  {name:28} {seconds / base:6.3f}")
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
