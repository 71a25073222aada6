"""A vision transformer on an `Accelerator`: scikit-learn's digits as a few tasks, gradients accumulated.

The loop is an ordinary Accelerate loop; what the library adds is marked. Prints the accuracy of every task right
after learning it and at the end, and the proof that no bit changed.

Run it with `python examples/accelerate_vit.py`; on several devices with
`accelerate launch examples/accelerate_vit.py`. It needs accelerate, scikit-learn and timm.
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.accelerate import accelerate_task

TASKS = {"0 1 2": (0, 1, 2), "3 4": (3, 4), "5 6 7": (5, 6, 7), "8 9": (8, 9)}


def load(classes: tuple[int, ...]) -> tuple[TensorDataset, TensorDataset]:
    """Return images `(n, 1, 8, 8)` with labels counted within the task, for training and for testing."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    y = torch.searchsorted(torch.tensor(classes), target[keep])
    test = torch.arange(len(x)) % 4 == 0
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


def logits(model: nn.Module, accelerator: Accelerator, data: TensorDataset) -> tuple[Tensor, Tensor]:
    """Return logits and labels of all samples, from all processes."""
    model.eval()
    loader = accelerator.prepare(DataLoader(data, batch_size=64))
    with torch.no_grad():
        parts = [accelerator.gather_for_metrics((model(x), y)) for x, y in loader]
    return torch.cat([out for out, _ in parts]), torch.cat([y for _, y in parts])


def main() -> None:
    """Learn the tasks one after another."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits with a vision transformer.")
    parser.add_argument("--tasks", type=int, default=len(TASKS), help="how many tasks")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each")
    parser.add_argument("--precision", default="no", choices=["no", "bf16", "fp16"], help="mixed precision")
    options = parser.parse_args()

    set_seed(0)
    accelerator = Accelerator(mixed_precision=options.precision, gradient_accumulation_steps=2)
    model: nn.Module = VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=3, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2.0
    )
    spec = fh.preset("hat", tasks=len(TASKS))
    session = fh.attach(model, spec, example_inputs=torch.zeros(2, 1, 8, 8))  # before anything is prepared

    learnt: dict[str, tuple[Tensor, Tensor]] = {}
    for name, classes in list(TASKS.items())[: options.tasks]:
        train, test = load(classes)
        with accelerate_task(session, accelerator, name, num_classes=len(classes)) as task:
            optimizer = torch.optim.AdamW(session.parameter_groups(lr=5e-3, weight_decay=0.05))
            loader = DataLoader(train, batch_size=16, shuffle=True)
            model, optimizer, loader = task.prepare(model, optimizer, loader)  # protects the optimizer
            for _ in range(options.epochs):
                model.train()
                for x, y in task.batches(loader):  # tells the gates where the loop is
                    with accelerator.accumulate(model):
                        task.backward(F.cross_entropy(model(x), y))  # adds the sparsity term of learnt gates
                        task.clip_grad_norm_(model.parameters(), 1.0)
                        optimizer.step()
                        optimizer.zero_grad()
        with session.use(name):  # evaluates as a finished task
            learnt[name] = logits(model, accelerator, test)

    accelerator.print(f"{'digits':10}{'when learnt':>13}{'at the end':>13}{'same bits':>11}")
    same = True
    for name, (before, labels) in learnt.items():
        with session.use(name):
            after, _ = logits(model, accelerator, load(TASKS[name])[1])
        then, now = ((out.argmax(1) == labels).float().mean() for out in (before, after))
        equal = torch.equal(before, after)
        accelerator.print(f"{name:10}{then:>13.1%}{now:>13.1%}{'yes' if equal else 'no':>11}")
        same = same and equal
    accelerator.print("earlier tasks bit-identical:", "yes" if same else "no")
    accelerator.end_training()


if __name__ == "__main__":
    main()
