"""What each importance measure costs: time of a training step relative to the plain step, and peak memory.

Each measure is timed against the plain step in one process, interleaved, on every step of a later task of FG-AdaHAT.
Memory is the peak of a process of its own above what it held before it had a model, beside that of the plain step.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import fgadahat_hooks as fh
from benchmarks.bench_step import Problem, gated, plain
from benchmarks.timing import medians

SLOW = ("feature_ablation_abs", "integrated_gradients_abs")
"""Measures that take minutes a step."""
SECONDS = 20.0
"""Approximate seconds for timing one measure."""


def mlp() -> nn.Module:
    """Return the MLP 784-256-100-64."""
    sizes = (784, 256, 100, 64)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def problems() -> dict[str, Problem]:
    """Return the two models of the table."""
    torch.manual_seed(0)
    x, y = torch.randn(128, 784), torch.randint(0, 10, (128,))
    image, label = torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))
    return {
        "mlp": Problem("MLP 784-256-100-64-10, batch 128", mlp, x, y),
        "resnet18": Problem("ResNet-18, 32x32, batch 16", lambda: resnet18(num_classes=10), image, label),
    }


def step_of(problem: Problem, measure: str) -> Callable[[], None]:
    """Return a training step with a measure, or the plain one."""
    if measure == "plain":
        return plain(problem, "sgd")
    spec = {"importance": {"type": measure}, "adjustment": fh.preset("fg_adahat", tasks=5).adjustment.model_dump()}
    step: Callable[[], None] = gated(problem, "sgd", spec, regularize=True)
    return step


def ratio(problem: Problem, measure: str) -> float:
    """Return the median time of a step with a measure, in units of plain steps."""
    steps = {"plain": step_of(problem, "plain"), measure: step_of(problem, measure)}
    if measure in SLOW:
        return slow_ratio(steps["plain"], steps[measure])
    for step in steps.values():
        step()
    begin = time.perf_counter()
    steps[measure]()
    rounds = max(3, min(60, int(SECONDS / (time.perf_counter() - begin))))
    times = medians(steps, rounds)
    return times[measure] / times["plain"]


def slow_ratio(plain_step: Callable[[], None], slow_step: Callable[[], None]) -> float:
    """Time one slow step between two series of plain steps."""
    before = medians({"plain": plain_step}, 20)["plain"]
    begin = time.perf_counter()
    slow_step()
    taken = time.perf_counter() - begin
    return 2 * taken / (before + medians({"plain": plain_step}, 20)["plain"])


def peak(problem: str, measure: str) -> float:
    """Return the megabytes that a process needs in addition to those before it had a model."""
    command = [sys.executable, "-m", "benchmarks.bench_measures", "--peak-of", problem, measure]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)  # noqa: S603  # our own module
    return float(done.stdout)


def print_peak(problem: str, measure: str) -> None:
    """Measure this process."""
    before = megabytes("VmRSS")
    step = step_of(problems()[problem], measure)
    step()
    if measure not in SLOW:
        for _ in range(3):
            step()
    print(megabytes("VmHWM") - before)


def megabytes(what: str) -> float:
    """Return how much memory this process holds now (`VmRSS`), or held at most (`VmHWM`).

    Not from `getrusage`, whose peak begins with that of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", default=["mlp", "resnet18"])
    parser.add_argument("--measures", nargs="+", default=list(fh.registry.measures.names()))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak-of", nargs=2, metavar=("PROBLEM", "MEASURE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print_peak(*options.peak_of)
        return
    for name in options.problems:
        problem = problems()[name]
        base = 0.0 if options.no_memory else peak(name, "plain")
        print(f"\n{problem.name} (plain step: peak {base:.0f} MB)")
        for measure in options.measures:
            memory = "" if options.no_memory else f"{peak(name, measure) / base:8.2f}"
            print(f"  {measure:52} {ratio(problem, measure):8.2f} {memory}", flush=True)


if __name__ == "__main__":
    main()
