"""Memory of one more task: what a session keeps of it, and what an export of it holds.

The last column is an export that shares with the session what is the same there, while nothing is trained.
Run it with `make bench`, or `python -m benchmarks.bench_memory`. Nothing is timed; the figures are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh

CLASSES = 10
MODELS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": lambda: torchvision.models.resnet18(num_classes=CLASSES),
    "ViT-B/16": lambda: torchvision.models.VisionTransformer(32, 16, 12, 12, 768, 3072, num_classes=CLASSES),
}
PARTS = ("masks", "importance", "heads", "norms", "other", "all", "export", "sharing")


def size(values: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of tensors, shared storages counted once."""
    storages = {s.data_ptr(): s.nbytes() for s in (value.untyped_storage() for value in values)}
    return sum(storages.values())


def learn(session: fh.Session, task: str) -> None:
    """Make one step, so that importances exist."""
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with session.task(task) as running:
        optimizer = running.protect(torch.optim.SGD(session.parameter_groups(lr=1e-3)))
        for inputs in running.batches([x]):
            F.cross_entropy(session.model(inputs), y).backward()
            optimizer.step()
            optimizer.zero_grad()


def parts_of(session: fh.Session, before: dict[str, Tensor]) -> dict[str, int]:
    """Return the bytes of the newest task's tensors, without those shared with the task before."""
    record = session.state_dict()["tasks"][-1]
    roles = {policy.name: policy.role for policy in session.plan.tensors}
    new = {name: value for name, value in record["tensors"].items() if value is not before.get(name)}
    by_role = {role: size(v for n, v in new.items() if roles[n] == role) for role in {*roles.values()}}
    found = {"masks": size(record["masks"].values()), "importance": size(record["importance"].values())}
    found |= {"heads": by_role.pop("head", 0), "norms": by_role.pop("norm", 0), "other": sum(by_role.values())}
    return found


def exported(session: fh.Session, task: str) -> tuple[int, int]:
    """Return the bytes of an export, and of its tensors that are not shared with the session's model."""
    mine, state = session.model.state_dict(), session.export(task).state_dict()
    return size(state.values()), size(v for n, v in state.items() if not torch.equal(v, mine[n]))


def main() -> None:
    """Print one row for each model."""
    print(f"{'model':<10} {'parameters':>14} " + " ".join(f"{part:>12}" for part in PARTS) + "   all / parameters")
    for name, make in MODELS.items():
        torch.manual_seed(0)
        model = make()
        total = size(model.parameters())
        session = fh.attach(model, fh.preset("fg_adahat", tasks=5), torch.randn(2, 3, 32, 32))
        learn(session, "first")
        before = session.state_dict()["tasks"][-1]["tensors"]
        learn(session, "second")
        found = parts_of(session, before)
        found["all"] = sum(found.values())
        found["export"], found["sharing"] = exported(session, "second")
        cells = " ".join(f"{found[part]:>12,}" for part in PARTS)
        print(f"{name:<10} {total:>14,} {cells}   {found['all'] / total:.2%}")


if __name__ == "__main__":
    main()
