"""What protecting finished tasks costs in a step of hard HAT: time, memory, and reads by the host.

Timed is what the library does around the optimizer's own step for the sake of finished tasks: what it writes back,
frozen parameters, the look for foreign writes, and the look for NaN, whose turn comes once in 64 steps. The ratio is
that to the median plain step, in seconds of the processor, interleaved in one process. Gates, the sparsity term and
measures are in `bench_step`. Run it with `make bench`, or `python -m benchmarks.bench_protection`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18

import fgadahat_hooks as fh
from benchmarks.bench_step import Problem, make_mlp, plain
from fgadahat_hooks.gates.kept_weights import KeptWeights
from fgadahat_hooks.protection.between_steps import BetweenSteps
from fgadahat_hooks.protection.finite_check import EVERY, FiniteCheck
from fgadahat_hooks.protection.frozen_parameters import FrozenParameters

PARTS: tuple[tuple[type, str], ...] = (
    (fh.GradientAdjustCallback, "on_before_optimizer_step"),
    (fh.GradientAdjustCallback, "on_after_optimizer_step"),
    (FrozenParameters, "hide"),
    (FrozenParameters, "restore"),
    (BetweenSteps, "check"),
    (KeptWeights, "see"),
)
HOST = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero")


def problems() -> list[Problem]:
    """Return the models of the table."""
    torch.manual_seed(0)
    image = torch.randn(16, 3, 32, 32)
    return [
        Problem("MLP 784-512-512-10, batch 128", make_mlp, torch.randn(128, 784), torch.randint(0, 10, (128,))),
        Problem("ResNet-18, 32x32, batch 16", lambda: resnet18(num_classes=10), image, torch.randint(0, 10, (16,))),
    ]


class Clock:
    """Adds up the time that some methods take."""

    def __init__(self) -> None:
        """Start at 0."""
        self.seconds = 0.0

    def wrap(self, owner: type, name: str) -> None:
        """Time a method of a class from now on."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - begun

        setattr(owner, name, timed)


class HostReads(TorchDispatchMode):
    """Counts the operations by which the host reads a value."""

    def __init__(self) -> None:
        """Start at 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation."""
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def after_a_task(problem: Problem, used: float) -> tuple[fh.Session, fh.Task, Callable[[], None]]:
    """Return a session whose finished task uses a share of every layer's units, and one step of the next task."""
    model = problem.model()
    session = fh.attach(model, {"adjustment": {"mode": "hat"}}, problem.x[:1])
    with session.task("a"), torch.no_grad():
        for embedding in session.embeddings.values():
            chosen = torch.randperm(embedding.numel())[: round(used * embedding.numel())]
            embedding.fill_(-1.0)[chosen] = 1.0
    task = session.task("b").__enter__()
    groups = session.parameter_groups(lr=1e-3, momentum=0.9, foreach=True)
    optimizer = task.protect(torch.optim.SGD(groups))

    def step() -> None:
        optimizer.zero_grad()
        task.begin_batch(5, 10, (problem.x, problem.y))
        (F.cross_entropy(model(problem.x), problem.y) + task.regularization()).backward()
        optimizer.step()

    return session, task, step


def measure(problem: Problem, used: float, rounds: int, clock: Clock) -> str:
    """Return a line of the table."""
    session, task, step = after_a_task(problem, used)
    plain_step, spent, plain_seconds = plain(problem, "sgd"), list[float](), list[float]()
    for _ in range(rounds + 3):
        begun = time.process_time()
        plain_step()
        plain_seconds.append(time.process_time() - begun)
        clock.seconds = 0.0
        step()
        spent.append(clock.seconds)
    base = statistics.median(plain_seconds[3:])
    part = statistics.median(spent[3:]) + look_for_nan(session.model) / EVERY
    while task.steps % EVERY != 1:  # the turn of the look for NaN is past
        step()
    with HostReads() as seen:
        step()
    kept = session._sequence.state.kept
    assert kept is not None
    entries = sum(e.count for e in kept.entries(running=True).values())
    size = sum(p.numel() for p in session.model.parameters())
    reads = sum(seen.names[name] for name in HOST)
    return (
        f"{problem.name:32} {used:4.0%} used   {part * 1000:6.2f} ms = {part / base:.3f} of a plain step "
        f"({base * 1000:.1f} ms)   {entries / size:5.1%} of the entries kept in {kept.nbytes / size / 4:5.1%} of the "
        f"model's memory   {reads} host reads"
    )


def look_for_nan(model: nn.Module) -> float:
    """Return the median time of one look for NaN, in seconds."""
    parameters = list(model.parameters())
    spent = []
    for _ in range(20):
        begun = time.process_time()
        FiniteCheck().look(1, parameters)
        spent.append(time.process_time() - begun)
    return statistics.median(spent)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    clock = Clock()
    for owner, name in PARTS:
        clock.wrap(owner, name)
    for problem in problems():
        for used in (0.2, 0.6):
            print(measure(problem, used, rounds * (10 if "MLP" in problem.name else 1), clock))


if __name__ == "__main__":
    main()
