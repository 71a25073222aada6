"""Your own importance measure in FG-AdaHAT: how much would the loss change without this unit?

The measure is the first-order estimate by which Molchanov et al. (CVPR 2019, Eq. 8) prune networks: the squared sum of
weight times gradient over a unit's weights. It is one class of a few lines; once registered it can be used in specs,
in `session.measure` and in the JSON schema. Learns three tasks of scikit-learn's digits with it, then tests how well it
ranks units: the reference is `feature_ablation_abs`, which switches off one unit after another.

Run it with `python examples/custom_measure.py` (a few seconds). It needs scikit-learn.
"""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh
from fgadahat_hooks.importance import LayerView

TASKS = {"small digits": (0, 1, 2), "middle digits": (3, 4, 5), "large digits": (6, 7, 8, 9)}


# ------------------------------------------------------------------ the measure
@fh.register_measure("taylor")
class Taylor(fh.Measure):
    """`I_i = |sum_j W_ij G_ij|^power`, with `W` the weights that feed unit `i` and `G` their gradients."""

    needs: ClassVar[frozenset[str]] = frozenset({"weight", "gradient"})

    def __init__(self, power: float = 2.0, **params: Any) -> None:
        """Read `params: {power: ...}` of a spec; the base class refuses other keys."""
        super().__init__(**params)
        self.power = power

    def compute(self, view: LayerView) -> Tensor:
        """Return `(units,)`; the layer type knows the axis of a weight that its units are on."""
        if view.weight_grad is None:  # the weights of this layer got no gradient in this step
            return torch.zeros(view.units, device=view.weight.device)
        product = view.weight.detach() * view.weight_grad
        return view.kind.sum_by_unit(view.module, product).abs() ** self.power


# ------------------------------------------------------------------ its use
def load(classes: tuple[int, ...]) -> tuple[TensorDataset, TensorDataset]:
    """Return images `(n, 1, 8, 8)` with labels counted within the task, for training and for testing."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    y = torch.searchsorted(torch.tensor(classes), target[keep])
    test = torch.arange(len(x)) % 4 == 0
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


def network() -> nn.Module:
    """Return any model; it needs no code for tasks."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def learn(session: fh.Session, name: str, epochs: int) -> None:
    """Learn one task."""
    loader = DataLoader(load(TASKS[name])[0], batch_size=64, shuffle=True)
    with session.task(name, num_classes=len(TASKS[name])) as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=2e-3)))
        for _ in range(epochs):
            session.model.train()
            for images, labels in task.batches(loader):
                optimizer.zero_grad()
                (F.cross_entropy(session.model(images), labels) + task.regularization()).backward()
                optimizer.step()
    session.model.eval()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's correlation of two sets of values `(n,)`; 1 is the same order."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def main(arguments: list[str] | None = None) -> None:
    """Learn with the measure, then compare its ranking with ablation."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits by an importance measure of your own.")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each task")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = network()
    spec = fh.preset("fg_adahat", tasks=len(TASKS)).model_dump()
    # The registered name, used like any other; not squared, since squares leave most units hardly protected.
    spec["importance"] = {"type": "taylor", "params": {"power": 1.0}}
    session = fh.attach(model, spec, example_inputs=torch.zeros(2, 1, 8, 8))
    for name in TASKS:
        learn(session, name, options.epochs)
    for name, classes in TASKS.items():
        images, labels = load(classes)[1].tensors
        with torch.no_grad(), session.use(name):
            right = (model(images).argmax(1) == labels).float().mean()
        print(f"{name}: {float(right):.1%} of the test images are right at the end")

    images, labels = load(TASKS["large digits"])[0].tensors
    measures = ("taylor", "activation_abs", "input_weight_abs_sum")
    with session.use("large digits"):
        truth = session.measure("feature_ablation_abs", images, labels)
        found = {measure: session.measure(measure, images, labels) for measure in measures}
    print("\nrank correlation with switching units off (1 = the same order), task 'large digits', units it uses:")
    print(f"{'layer':8}{'units':>7}" + "".join(f"{measure:>22}" for measure in measures))
    for layer, used in session.masks("large digits").items():
        values = [rank_correlation(found[measure][layer][used], truth[layer][used]) for measure in measures]
        print(f"{layer:8}{int(used.sum()):>7}" + "".join(f"{value:>22.2f}" for value in values))


if __name__ == "__main__":
    main()
