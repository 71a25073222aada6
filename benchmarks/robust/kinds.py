"""Which model learns which tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from benchmarks.robust import data, models, text
from benchmarks.robust.data import Data, Task


class Kind(NamedTuple):
    """A kind of model with its tasks.

    Attributes:
        model: Builds it for a number of classes.
        task: Gives the data of a task.
        classes: Classes of each task.
        batch: Samples of a batch.
        before: What a pretrained start has learnt, all ten classes of it.
    """

    model: Callable[[int], nn.Module]
    task: Task
    classes: int = 2
    batch: int = 32
    before: Callable[[], Data] | None = None

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / self.classes


MLP, WIDE = partial(models.mlp, 64, 64), partial(models.mlp, 784, 256)
DIGITS, DIGITS_3 = data.digit_pairs(), data.digit_pairs(28, 3)
FASHION, FASHION_3 = data.fashion_pairs(14), data.fashion_pairs(28, 3)
TURNED, TURNED_14 = data.turned_digits, partial(data.turned_fashion, 14)

KINDS = {
    "mlp, digits": Kind(MLP, DIGITS),
    "mlp, permuted digits": Kind(MLP, data.permuted_digits, 10),
    "mlp, permuted fashion": Kind(WIDE, data.permuted_fashion, 10, 64),
    "cnn, digits": Kind(partial(models.cnn, 8, False), DIGITS, before=TURNED),
    "cnn, fashion": Kind(partial(models.cnn, 14, False), FASHION, batch=64, before=TURNED_14),
    "cnn+bn, digits": Kind(partial(models.cnn, 8, True), DIGITS, before=TURNED),
    "cnn+bn, fashion": Kind(partial(models.cnn, 14, True), FASHION, batch=64, before=TURNED_14),
    "depthwise, digits": Kind(models.depthwise, DIGITS),
    "depthwise, fashion": Kind(models.depthwise, FASHION, batch=64),
    "resnet-18, digits": Kind(models.resnet, DIGITS_3),
    "resnet-18, fashion": Kind(models.resnet, FASHION_3, batch=64),
    "mobilenet-v3, digits": Kind(models.mobilenet, DIGITS_3),
    "mobilenet-v3, fashion": Kind(models.mobilenet, FASHION_3, batch=64),
    "vit, digits": Kind(models.vit, data.digit_pairs(28), before=partial(data.turned_digits, 28)),
    "vit, fashion": Kind(models.vit, data.fashion_pairs(28), batch=64, before=partial(data.turned_fashion, 28)),
    "bert, text": Kind(models.bert, text.packages),
}


def available(name: str) -> bool:
    """Return whether a kind's data is on this machine."""
    return "fashion" not in name or data.has_fashion()
