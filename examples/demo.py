"""Five tasks, one unmodified ResNet-18, three ways to train it: what is still known at the end?

scikit-learn's handwritten digits (real scans, 1,797 of them, shipped with the package) come as five tasks of two
classes each: 0 or 1, 2 or 3, ... The model is `torchvision.models.resnet18(weights=None)`. The optimizer is AdamW
with weight decay in all three runs. With gates, each task gets its share of every layer's units.

Run it with `make demo`, or `python examples/demo.py`. What FG-AdaHAT did is then in `build/demo/report.html`, and its
session in `build/demo/run`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

import fgadahat_hooks as fh

TASKS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
NAMES = [f"{a} or {b}" for a, b in TASKS]
FOLDER = Path("build/demo")


@dataclass
class Result:
    """What one method reached.

    Attributes:
        after: `after[k][j]`, accuracy on task j after training task k.
        units: Number of gated units, and how many of them the tasks use at the end; None without gates.
        identical: Whether all earlier tasks' logits were bit-identical at the end.
        session: The session at the end, None without gates.
    """

    after: list[list[float]] = field(default_factory=list)
    units: tuple[int, int] | None = None
    identical: bool | None = None
    session: fh.Session | None = None

    @property
    def average(self) -> float:
        """Mean accuracy over all tasks at the end."""
        return sum(self.after[-1]) / len(self.after[-1])

    @property
    def forgetting(self) -> float:
        """Mean drop from the best accuracy a task ever had to that at the end (Chaudhry et al., 2018)."""
        last = len(self.after) - 1
        drops = [max(row[j] for row in self.after[j:last]) - self.after[last][j] for j in range(last)]
        return sum(drops) / len(drops)


@dataclass
class TaskData:
    """Images `(n, 3, 32, 32)` and labels 0 or 1 of one task."""

    train: DataLoader[Any]
    images: Tensor
    labels: Tensor


def load_tasks(seed: int) -> list[TaskData]:
    """Load the digits, enlarged to 32x32 and repeated to three channels, as five tasks."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    images = F.interpolate((images - 0.3) / 0.4, size=32, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(digits.target)
    train, test = train_test_split(range(len(labels)), test_size=0.3, random_state=seed, stratify=digits.target)
    return [_one_task(images, labels, torch.tensor(train), torch.tensor(test), a, b) for a, b in TASKS]


def _one_task(images: Tensor, labels: Tensor, train: Tensor, test: Tensor, a: int, b: int) -> TaskData:
    def of(rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows[(labels[rows] == a) | (labels[rows] == b)]
        return images[rows], (labels[rows] == b).long()

    return TaskData(DataLoader(TensorDataset(*of(train)), batch_size=32, shuffle=True), *of(test))


def accuracy(outputs: Tensor, data: TaskData) -> float:
    """Return the share of test images that are right."""
    return float((outputs.argmax(1) == data.labels).float().mean())


def logits(model: nn.Module, data: TaskData) -> Tensor:
    """Return the model's outputs on a task's test images."""
    model.eval()
    with torch.no_grad():
        out: Tensor = model(data.images)
        return out


def fine_tune(tasks: list[TaskData], epochs: int, tick: Callable[[], None]) -> Result:
    """Train one task after the other with nothing but a head for each."""
    model = resnet18(weights=None)
    heads, result = [], Result()
    for data in tasks:
        model.fc = nn.Linear(512, 2)
        heads.append(model.fc)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
        for _ in range(epochs):
            model.train()
            for x, y in data.train:
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                tick()
        row = []
        for head, seen in zip(heads, tasks, strict=False):
            model.fc = head
            row.append(accuracy(logits(model, seen), seen))
        result.after.append(row)
    return result


def with_gates(spec: fh.AttachSpec, tasks: list[TaskData], epochs: int, tick: Callable[[], None]) -> Result:
    """Train one task after the other on an attached model."""
    model = resnet18(weights=None)
    session = fh.attach(model, spec, example_inputs=torch.zeros(1, 3, 32, 32))
    result, recorded = Result(), []
    for name, data in zip(NAMES, tasks, strict=True):
        with session.task(name, num_classes=2) as task:
            optimizer = torch.optim.AdamW(session.parameter_groups(lr=1e-3, weight_decay=0.05))
            task.protect(optimizer)
            for _ in range(epochs):
                model.train()
                for x, y in task.batches(data.train):
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(x), y) + task.regularization()
                    loss.backward()
                    optimizer.step()
                    tick()
        now = []
        for seen, test in zip(session.tasks, tasks, strict=False):
            with session.use(seen):
                now.append(logits(model, test))
        result.after.append([accuracy(outputs, test) for outputs, test in zip(now, tasks, strict=False)])
        recorded.append(now[-1])
    masks = torch.cat(list(session.cumulative_mask.values()))
    result.units, result.session = (masks.numel(), int(masks.sum())), session
    result.identical = all(torch.equal(a, b) for a, b in zip(recorded, now, strict=True))
    return result


def in_words(units: int, used: int) -> str:
    """Return how much of the network hard HAT has used, and what that means for the next task."""
    said = f"after {len(TASKS)} tasks {used:,} of {units:,} units are used"
    if used < units:
        return f"{said}, and {units - used:,} are left for further tasks."
    return (
        f"{said}, as planned: the preset was told of {len(TASKS)} tasks. A further task would get no units of its own, "
        f"and would read these with a head and norms of its own. tasks={len(TASKS) + 1} makes room for one more."
    )


def show(console: Console, results: dict[str, Result], seconds: float) -> None:
    """Print the table."""
    table = Table(title="Accuracy right after learning a task -> after all five tasks", title_justify="left")
    table.add_column("method")
    for name in NAMES:
        table.add_column(name, justify="center")
    for name in ("average", "forgetting", "units used"):
        table.add_column(name, justify="right")
    for method, r in results.items():
        cells = [f"{100 * r.after[j][j]:.0f} -> {100 * r.after[-1][j]:.0f} %" for j in range(len(NAMES))]
        used = "-" if r.units is None else f"{100 * r.units[1] / r.units[0]:.0f} %"
        table.add_row(method, *cells, f"{100 * r.average:.1f} %", f"{100 * r.forgetting:.1f} points", used)
    console.print(table)
    for method, r in results.items():
        if r.units is not None:
            console.print(f"{method}: earlier tasks' logits bit-identical: {'yes' if r.identical else 'no'}")
    if (units := results["hard HAT"].units) is not None:
        console.print(f"hard HAT: {in_words(*units)}", highlight=False)
    console.print(
        "average: mean accuracy over all tasks at the end. forgetting: mean drop from a task's best accuracy. "
        "units used: share of the gated units that any task uses.",
        style="dim",
    )
    console.print(f"Took {seconds:.0f} s.", style="dim")


def keep(result: Result, folder: Path) -> Path:
    """Prove that nothing leaks, save the session with its accuracies, and write the report of both."""
    session = result.session
    if session is None:
        raise ValueError("Expected a result of a method with gates, but got one without. Keep another one.")
    session.model.eval()
    session.verify()
    session.save(folder / "run", extra={"accuracy": result.after})
    return fh.report(folder / "run", folder / "report.html")


def main() -> None:
    """Train the three ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a task (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 150)
    start = time.perf_counter()
    methods: dict[str, Callable[[list[TaskData], int, Callable[[], None]], Result]] = {
        "fine-tuning": fine_tune,
        "hard HAT": lambda *a: with_gates(fh.preset("hat", tasks=len(TASKS)), *a),
        "FG-AdaHAT": lambda *a: with_gates(fh.preset("fg_adahat", tasks=len(TASKS)), *a),
    }
    columns = (TextColumn("{task.description:12}"), BarColumn(), TimeElapsedColumn())
    results = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for method, run in methods.items():
            torch.manual_seed(options.seed)
            tasks = load_tasks(options.seed)
            bar = progress.add_task(method, total=options.epochs * sum(len(t.train) for t in tasks))
            if not console.is_terminal:
                console.print(f"training {method} ...")
            results[method] = run(tasks, options.epochs, lambda bar=bar: progress.advance(bar))  # type: ignore[misc]
    show(console, results, time.perf_counter() - start)
    console.print(f"The run of FG-AdaHAT, in a browser: {keep(results['FG-AdaHAT'], FOLDER)}", highlight=False)


if __name__ == "__main__":
    main()
