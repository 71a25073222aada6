"""How the cost of a step grows with the number of gated layers, and with the number of finished tasks.

The first should be a line, the second flat: all that finished tasks left is summed up once, when a task begins. The
memory column is what an attached model keeps beside the plain model and optimizer, in multiples of the model's
parameters. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import gc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.bench_step import FG, MEASURE, Problem, gated, plain
from benchmarks.timing import medians

SPEC = {"importance": {"type": MEASURE}, "adjustment": FG.model_dump()}


def deep(layers: int, width: int = 256) -> nn.Module:
    """Return an MLP with so many gated layers, and a head."""
    hidden = [m for _ in range(layers) for m in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def problem(layers: int) -> Problem:
    """Return a deep MLP with a batch of 128."""
    return Problem(f"{layers} layers", lambda: deep(layers), torch.randn(128, 256), torch.randint(0, 10, (128,)))


def held_bytes(make: Callable[[], Any]) -> int:
    """Return the bytes of tensors that exist after a few steps but not before."""
    gc.collect()
    before = {t.untyped_storage().data_ptr() for t in tensors()}
    step = make()
    for _ in range(3):
        step()
    gc.collect()
    storages = {s.data_ptr(): s.nbytes() for t in tensors() if (s := t.untyped_storage()).data_ptr() not in before}
    return sum(storages.values())


def tensors() -> list[torch.Tensor]:
    """Return all living tensors."""
    with warnings.catch_warnings():  # accessing every object triggers deprecation warnings
        warnings.simplefilter("ignore")
        return [o for o in gc.get_objects() if isinstance(o, torch.Tensor)]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    print("layers  plain ms  added ms  added per layer ms  ratio  extra memory / parameters")
    for layers in (2, 4, 8, 16, 32):
        p = problem(layers)
        full = partial(gated, p, "sgd", dict(SPEC), regularize=True)
        times = medians({"plain": plain(p, "sgd"), "full": full()}, rounds)
        base, added = 1000 * times["plain"], 1000 * (times["full"] - times["plain"])
        size = 4 * sum(t.numel() for t in p.model().parameters())
        memory = (held_bytes(full) - held_bytes(partial(plain, p, "sgd"))) / size
        ratio = 1000 * times["full"] / base
        print(f"{layers:6}  {base:8.2f}  {added:8.2f}  {added / layers:18.3f}  {ratio:5.2f}  {memory:25.2f}")

    print("\nfinished tasks  ratio to one finished task (8 layers)")
    p = problem(8)
    steps = {str(n): gated(p, "sgd", dict(SPEC), regularize=True, tasks=n) for n in (1, 4, 16, 64)}
    times = medians(steps, rounds)
    for name, seconds in times.items():
        print(f"{name:>14}  {seconds / times['1']:.3f}")


if __name__ == "__main__":
    main()
