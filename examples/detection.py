"""A detector learns two sets of classes: torchvision's FCOS on scikit-learn's digits, pasted on canvases.

The first task is to find zeros to fours, the second fives to nines. The loop is torchvision's own: images and targets
in, a dict of losses out. All three output layers (classes, boxes, centreness) are found as heads; each task has its
own. Prints the mean average precision (torchmetrics) of both tasks, and the proof that the first task's boxes,
scores and labels are bit-identical after the second.

Run it with `python examples/detection.py` (two to three minutes). It needs scikit-learn, torchvision and pycocotools.
"""

from __future__ import annotations

import argparse
import math
import warnings
from itertools import pairwise
from typing import Any, cast

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

import fgadahat_hooks as fh

SIZE, CLASSES, DIGITS = 64, 5, 3
TASKS = {"zero to four": 0, "five to nine": 5}
Target = dict[str, Tensor]
Sample = tuple[Tensor, Target]


class Backbone(nn.Sequential):
    """Four convolutions; feature maps of an eighth of the image's size."""

    out_channels = 64

    def __init__(self) -> None:
        """Make the layers."""
        widths = (1, 32, 64, 64, 64)
        blocks = []
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            conv = nn.Conv2d(inputs, outputs, 3, stride=2 if number < 3 else 1, padding=1, bias=False)
            blocks += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*blocks)


def make_model() -> FCOS:
    """Return a small FCOS for grey images."""
    anchors = AnchorGenerator(sizes=((16,),), aspect_ratios=((1.0,),))
    return FCOS(
        Backbone(), CLASSES, anchor_generator=anchors, min_size=SIZE, max_size=SIZE, image_mean=[0.1], image_std=[0.3],
        score_thresh=0.05, center_sampling_radius=2.5,
    )  # fmt: skip


@torch.no_grad()
def start_heads(model: FCOS) -> None:
    """Begin as detectors do: each place is background, and boxes are not empty, for behind a relu those never grow.

    A new task's heads are drawn as their classes draw them, which know nothing of detection.
    """
    head: Any = model.head
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.01)
    nn.init.constant_(head.classification_head.cls_logits.bias, -math.log(99))
    nn.init.constant_(head.regression_head.bbox_reg.bias, 1.0)


def canvases(first: int, count: int, seed: int, *, test: bool) -> list[Sample]:
    """Return canvases with up to three digits, five classes from `first` on; test digits are never in training."""
    data = load_digits()
    pixels, labels = torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)
    keep = (labels >= first) & (labels < first + CLASSES)
    keep &= (torch.arange(len(labels)) % 4 == 0) == test
    pixels, labels = pixels[keep].repeat_interleave(2, 1).repeat_interleave(2, 2), labels[keep] - first
    draw = torch.Generator().manual_seed(seed)
    return [_canvas(pixels, labels, draw) for _ in range(count)]


def _canvas(pixels: Tensor, labels: Tensor, draw: torch.Generator) -> Sample:
    """Paste digits of 16 pixels into cells of 21, at a random place in each."""
    image, boxes, found = 0.1 * torch.rand(1, SIZE, SIZE, generator=draw), [], []
    count = int(torch.randint(1, DIGITS + 1, (), generator=draw))
    for cell in torch.randperm(9, generator=draw)[:count].tolist():
        pick = int(torch.randint(len(labels), (), generator=draw))
        x, y = (int(torch.randint(0, 5, (), generator=draw)) + 21 * place for place in (cell % 3, cell // 3))
        image[0, y : y + 16, x : x + 16] += pixels[pick]
        boxes.append([x, y, x + 16, y + 16])
        found.append(int(labels[pick]))
    return image, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(found)}


def train(session: fh.Session, task_id: str, data: list[Sample], epochs: int) -> None:
    """Learn one task in torchvision's way."""
    model = cast("FCOS", session.model)
    with session.task(task_id, epochs=epochs) as task:
        start_heads(model)
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-3, weight_decay=1e-4)))
        for _ in range(epochs):
            model.train()
            order = torch.randperm(len(data)).split(8)
            for batch in task.batches([[data[i] for i in rows] for rows in order]):
                optimizer.zero_grad()
                losses: dict[str, Tensor] = model([image for image, _ in batch], [target for _, target in batch])
                (torch.stack(list(losses.values())).sum() + task.regularization()).backward()
                optimizer.step()


@torch.no_grad()
def detect(session: fh.Session, task_id: str, data: list[Sample]) -> list[dict[str, Tensor]]:
    """Return boxes, scores and labels of each image."""
    session.model.eval()
    with session.use(task_id):
        found: list[dict[str, Tensor]] = session.model([image for image, _ in data])
    return found


def precision(found: list[dict[str, Tensor]], data: list[Sample]) -> float:
    """Return the mean average precision, over overlaps of 0.5 to 0.95."""
    metric = MeanAveragePrecision()
    metric.update(found, [target for _, target in data])
    return float(metric.compute()["map"])


def main(arguments: list[str] | None = None) -> None:
    """Learn both tasks."""
    parser = argparse.ArgumentParser(description="Learn to detect two sets of digits, one after the other.")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each task")
    parser.add_argument("--images", type=int, default=400, help="training images of each task")
    parser.add_argument("--test-images", type=int, default=100, help="test images of each task")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics")

    torch.manual_seed(0)
    first = canvases(0, 2, 0, test=False)
    session = fh.attach(make_model(), fh.preset("hat", tasks=len(TASKS)), ([image for image, _ in first],))
    print(f"heads: {', '.join(session.graph.heads)}")

    tests = {task: canvases(start, options.test_images, 2, test=True) for task, start in TASKS.items()}
    before: list[dict[str, Tensor]] = []
    for task, start in TASKS.items():
        train(session, task, canvases(start, options.images, 1, test=False), options.epochs)
        before = before or detect(session, task, tests[task])
        for known in map(str, session.tasks):
            print(f"after {task}: {known}, mAP {precision(detect(session, known, tests[known]), tests[known]):.2f}")

    after = detect(session, next(iter(TASKS)), tests[next(iter(TASKS))])
    same = all(torch.equal(a[key], b[key]) for a, b in zip(before, after, strict=True) for key in a)
    print(f"boxes, scores and labels of the first task bit-identical: {'yes' if same else 'no'}")


if __name__ == "__main__":
    main()
