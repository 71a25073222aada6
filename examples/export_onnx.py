"""Export a task to ONNX: a file for ONNX Runtime, with all units or with the unused ones removed.

Learns two tasks of scikit-learn's digits, exports each to a plain module and that to ONNX, runs the file and compares:
the plain module is bit-identical to the session; ONNX Runtime has its own kernels and agrees up to rounding.

Run it with `python examples/export_onnx.py` (half a minute). It needs onnx, onnxruntime, onnxscript and scikit-learn.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import onnxruntime
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

TASKS = {"small digits": (0, 1, 2, 3, 4), "large digits": (5, 6, 7, 8, 9)}


def load(classes: tuple[int, ...]) -> tuple[TensorDataset, TensorDataset]:
    """Return images `(n, 1, 8, 8)` with labels counted within the task, for training and for testing."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    y = torch.searchsorted(torch.tensor(classes), target[keep])
    test = torch.arange(len(x)) % 4 == 0
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


def learn(epochs: int) -> fh.Session:
    """Learn the tasks."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    session = fh.attach(model, fh.preset("hat", tasks=4), example_inputs=torch.zeros(2, 1, 8, 8))
    for name, classes in TASKS.items():
        loader = DataLoader(load(classes)[0], batch_size=64, shuffle=True)
        with session.task(name, num_classes=len(classes)) as task:
            optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=2e-3)))
            for _ in range(epochs):
                for images, labels in task.batches(loader):
                    optimizer.zero_grad()
                    (F.cross_entropy(model(images), labels) + task.regularization()).backward()
                    optimizer.step()
    model.eval()
    return session


def to_onnx(module: nn.Module, images: Tensor, file: Path) -> None:
    """Write a module to an ONNX file that takes batches of any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings from inside the exporter
        torch.onnx.export(
            module, (images,), str(file), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
        )


def run_onnx(file: Path, images: Tensor) -> Tensor:
    """Return the logits that ONNX Runtime computes."""
    reader = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(reader.run(None, {reader.get_inputs()[0].name: images.numpy()})[0])


def report(session: fh.Session, name: str, folder: Path, *, compact: bool) -> str:
    """Export a task to a file, run it on the task's test images, and return one line that compares the results."""
    images, labels = load(TASKS[name])[1].tensors
    module = session.export(name, compact=compact)
    form = "compact" if compact else "whole"
    file = folder / f"{name.replace(' ', '_')}_{form}.onnx"
    to_onnx(module, images[:2], file)

    found = run_onnx(file, images)
    with torch.no_grad(), session.use(name):
        truth = session.model(images)
    with torch.no_grad():
        logits = module(images)
    size = sum(part.stat().st_size for part in folder.glob(f"{file.name}*"))  # weights may be in a second file
    parameters = sum(parameter.numel() for parameter in module.parameters())
    bits = "same bits" if torch.equal(logits, truth) else f"{(logits - truth).abs().max():.0e} apart"
    same = "same classes" if torch.equal(found.argmax(1), truth.argmax(1)) else "OTHER CLASSES"
    right = float((found.argmax(1) == labels).float().mean())
    return f"{name:14}{form:9}{parameters:>10,}{size // 1024:>6} kB   {bits:21}{same:19}{right:>8.1%}"


def main(arguments: list[str] | None = None) -> None:
    """Learn, export, compare."""
    parser = argparse.ArgumentParser(description="Export tasks of digits to ONNX and run them.")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each task")
    parser.add_argument("--folder", type=Path, help="where to keep the files; without it they are thrown away")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    session = learn(options.epochs)
    print(f"{'':45}{'plain module and':21}{'ONNX Runtime and':19}{'right in':>8}")
    print(f"{'task':14}{'form':9}{'parameters':>10}{'file':>9}   {'session':21}{'session':19}{'ONNX':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in TASKS:
            for compact in (False, True):
                print(report(session, name, folder, compact=compact))


if __name__ == "__main__":
    main()
