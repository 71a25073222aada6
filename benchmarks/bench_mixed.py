"""What a batch with samples of several tasks costs, relative to one plain forward.

One forward runs for each distinct task, so their number bounds the ratio. All variants run interleaved in one process;
the table shows ratios of medians. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18

import fgadahat_hooks as fh
from benchmarks.timing import medians

TASKS = 8
BATCH = 16
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-18, 64x64": (lambda: resnet18(num_classes=10), 64),
    "ViT, 6 layers of 192, 64x64": (lambda: VisionTransformer(64, 8, 6, 3, 192, 768, num_classes=10), 64),
}


def serving(model: nn.Module, x: Tensor) -> fh.Session:
    """Return a session with eight finished tasks, made without a step; their masks are random."""
    session = fh.attach(model, fh.preset("hat", tasks=5), x[:2])
    for number in range(TASKS):
        with session.task(number):
            pass
    model.eval()
    return session


def forward(session: fh.Session, count: int, x: Tensor) -> None:
    """Run one batch with samples of so many tasks."""
    with torch.no_grad(), session.use([n % count for n in range(len(x))]):
        session.model(x)


def plain(model: nn.Module, x: Tensor) -> None:
    """Run the user's own model."""
    with torch.no_grad():
        model(x)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print("| model, batch 16 | " + " | ".join(f"{k} task(s)" for k in (1, 2, 4, 8)) + " |")
    print("|---|---:|---:|---:|---:|")
    for name, (make, size) in MODELS.items():
        torch.manual_seed(0)
        model, x = make(), torch.randn(BATCH, 3, size, size)
        session = serving(copy.deepcopy(model), x)
        variants: dict[str, Callable[[], object]] = {"plain": partial(plain, model.eval(), x)}
        variants |= {str(k): partial(forward, session, k, x) for k in (1, 2, 4, 8)}
        found = medians(variants, rounds)
        print(f"| {name} | " + " | ".join(f"{found[str(k)] / found['plain']:.2f}" for k in (1, 2, 4, 8)) + " |")


if __name__ == "__main__":
    main()
