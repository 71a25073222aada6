"""Models whose execution path depends on the sign of their inputs, and what tests do with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

import fgadahat_hooks as fh

SHAPE = (6, 3, 8, 8)
CLASSES = 4


class Base(nn.Module):
    """A stem, two convolutions and a head; how they are connected depends on the sign of the inputs' mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.a = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.Conv2d(10, 10, 3)
        self.other, self.b, self.head = nn.Conv2d(3, 10, 3), nn.Conv2d(10, 10, 3), nn.Linear(10, CLASSES)
        self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

    def negative(self, x: Tensor) -> bool:
        return bool(x.mean() < 0)

    def finish(self, h: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.b(h)).mean((2, 3)))
        return logits

    def usual(self, x: Tensor) -> Tensor:
        h: Tensor = self.relu(self.a(self.relu(self.norm(self.stem(x)))))
        return h


class OtherActivation(Base):
    """`sigmoid(0)` is not zero: what `b` reads is live on negative inputs."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(self.relu(self.norm(self.stem(x))))
        return self.finish(self.sigmoid(h) if self.negative(x) else self.relu(h))


class OtherFeeder(Base):
    """On negative inputs `b` reads a layer without a gate."""

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.other(x)[..., :4, :4] if self.negative(x) else self.usual(x))


class SkippedLayer(Base):
    """On negative inputs `b` reads the stem."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.stem(x)))
        return self.finish(h if self.negative(x) else self.relu(self.a(h)))


class SkippedNorm(Base):
    """The stem's gate is behind the norm, which negative inputs skip."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.finish(self.relu(self.a(self.relu(h if self.negative(x) else self.norm(h)))))


class SharedNorm(Base):
    """On negative inputs the norm behind the stem normalises another layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.relu(self.a(self.relu(self.norm((self.other if self.negative(x) else self.stem)(x))))))


class Swapped(Base):
    """On negative inputs the two layers swap places."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.stem(x)))
        first, second = (self.b, self.a) if self.negative(x) else (self.a, self.b)
        h = self.sigmoid(second(self.relu(first(h)))) if self.negative(x) else self.relu(second(self.relu(first(h))))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


class EarlyExit(Base):
    """Negative inputs exit early, through the same head."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.stem(x)))
        if self.negative(x):
            logits: Tensor = self.head(self.sigmoid(h).mean((2, 3)))
            return logits
        return self.finish(self.relu(self.a(h)))


class Borrowed(Base):
    """On negative inputs the weight of `a` is used without calling `a`: its gate does not act."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.stem(x)))
        borrowed = F.conv2d(self.sigmoid(h), self.a.weight, self.a.bias) if self.negative(x) else None
        return self.finish(self.relu(self.a(h)) if borrowed is None else borrowed)


MODELS: tuple[type[Base], ...] = (
    OtherActivation,
    OtherFeeder,
    SkippedLayer,
    SkippedNorm,
    SharedNorm,
    Swapped,
    EarlyExit,
    Borrowed,
)
SPEC = {"gates": {"exclude": ["other"]}}


def batch(sign: float, seed: int = 0, count: int = SHAPE[0]) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(seed)) + 0.5 * sign


def attached(model: nn.Module) -> fh.Session:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.uniform_(0.2, 0.6)
    return fh.attach(model, SPEC if isinstance(model, Base) else {}, batch(1, count=2))


def learn(session: fh.Session, task: str, signs: tuple[int, ...], steps: int = 3) -> None:
    with session.task(task) as running:
        optimizer = running.protect(AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.1)))
        session.model.train()
        for step in running.batches(range(steps * len(signs))):
            optimizer.zero_grad()
            x = batch(signs[step % len(signs)], seed=step + ord(task))
            loss = F.cross_entropy(session.model(x), torch.arange(len(x)) % CLASSES)
            (loss + running.regularization()).backward()
            optimizer.step()


def task_logits(session: fh.Session, task: str, sign: int) -> Tensor:
    session.model.eval()
    with torch.no_grad(), session.use(task):
        out: Tensor = session.model(batch(sign, seed=77))
    return out.clone()
