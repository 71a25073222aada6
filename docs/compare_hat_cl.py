"""Does the first of two tasks keep its bits, with HAT-CL and with this library, under which optimizer?

HAT-CL's metadata asks for an older Python and torch; its modules run on newer ones::

    pip install --no-deps --ignore-requires-python hat-cl==0.1.1
    pip install pandas
    python docs/compare_hat_cl.py

The table it prints is in `docs/coming-from-hat-cl.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from hat import HATConfig, HATPayload
from hat.modules import HATLinear
from hat.utils import get_hat_mask_scale, get_hat_reg_term
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer

import fgadahat_hooks as fh

EPOCHS, BATCHES = 10, 10
Make = Callable[[Iterable[object]], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda groups: SGD(groups, lr=0.1),
    "SGD, momentum 0.9": lambda groups: SGD(groups, lr=0.1, momentum=0.9),
    "Adam": lambda groups: Adam(groups, lr=1e-2),
    "AdamW, weight decay 0.1": lambda groups: AdamW(groups, lr=1e-2, weight_decay=0.1),
}


class Payloads(nn.Module):
    """The network in HAT-CL's modules: payloads go in, and the heads are the user's affair."""

    def __init__(self) -> None:
        """Make two gated layers and a head for each task."""
        super().__init__()
        config = HATConfig(num_tasks=2)
        self.a, self.b = HATLinear(8, 64, config), HATLinear(64, 64, config)
        self.heads = nn.ModuleList(nn.Linear(64, 2) for _ in range(2))

    def forward(self, payload: HATPayload) -> Tensor:
        """Return logits."""
        payload = self.a(payload).forward_by(nn.ReLU())
        payload = self.b(payload).forward_by(nn.ReLU())
        logits: Tensor = self.heads[payload.task_id](payload.data)
        return logits


def data() -> tuple[Tensor, list[Tensor]]:
    """Return inputs `(128, 8)` and the labels of each task."""
    return torch.randn(128, 8), [torch.randint(0, 2, (128,)) for _ in range(2)]


def hat_cl(make: Make, kept: bool) -> bool:
    """Tell whether HAT-CL's first task keeps its bits."""
    torch.manual_seed(0)
    model, (x, labels), logits = Payloads(), data(), []
    optimizer = make(model.parameters())
    for task, y in enumerate(labels):
        optimizer = optimizer if kept else make(model.parameters())
        model.train()
        for step in range(EPOCHS * BATCHES):
            scale = get_hat_mask_scale(strat="linear", progress=step % BATCHES / (BATCHES - 1))
            optimizer.zero_grad()
            term = get_hat_reg_term(model, strat="uniform", task_id=task, mask_scale=scale)
            loss = F.cross_entropy(model(HATPayload(x, task_id=task, mask_scale=scale)), y) + 0.5 * term
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits.append(model(HATPayload(x, task_id=0)))
    return torch.equal(logits[0], logits[1])


def ours(make: Make, kept: bool) -> bool:
    """Tell whether this library's first task keeps its bits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    (x, labels), logits, optimizer = data(), [], None
    session = fh.attach(model, {}, x)
    for task, y in enumerate(labels):
        with session.task(task) as running:
            optimizer = optimizer if kept and optimizer else make(session.parameter_groups(lr=1e-2))
            running.protect(optimizer)
            model.train()
            for _ in range(EPOCHS):
                for _ in running.batches(range(BATCHES)):
                    optimizer.zero_grad()
                    (F.cross_entropy(model(x), y) + running.regularization()).backward()
                    optimizer.step()
        model.eval()
        with torch.no_grad(), session.use(0):
            logits.append(model(x))
    return torch.equal(logits[0], logits[1])


def main() -> None:
    """Print the table."""
    say = {True: "same bits", False: "change"}
    rows = [
        f"| {name}, {'kept' if kept else 'made anew'} | {say[hat_cl(make, kept)]} | {say[ours(make, kept)]} |"
        for name, make in OPTIMIZERS.items()
        for kept in (False, True)
    ]
    print("| optimizer for task 2 | HAT-CL | fgadahat_hooks |\n|---|---|---|", *rows, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
