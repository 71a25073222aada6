"""How many outputs the heads of a task get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError


class Anchors(nn.Module):
    """Scores of two anchors a class, whose module says how many classes there are."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes, self.scores = 3, nn.Linear(6, 6)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.scores(h).view(len(h), 2, self.num_classes)
        return out


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.cls, self.box = nn.Linear(4, 6), Anchors(), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x).relu()
        return self.cls(h), self.box(h)


def attached(model: nn.Module | None = None) -> fh.Session:
    return fh.attach(model or Detector(), {}, torch.randn(2, 4))


def sizes(session: fh.Session) -> tuple[int, int, int]:
    model: Any = session.model
    return model.cls.scores.out_features, model.box.out_features, model.cls.num_classes


def test_the_heads_that_count_classes_follow() -> None:
    session = attached()
    found = []
    for task, classes in (("a", None), ("b", 5), ("c", 2)):
        with session.task(task, num_classes=classes) as running:
            running.anneal(1, 1)
            found.append((*sizes(session), tuple(session.model(torch.randn(2, 4))[0].shape)))
    assert found == [(6, 8, 3, (2, 2, 3)), (10, 8, 5, (2, 2, 5)), (4, 8, 2, (2, 2, 2))]
    with session.use("b"):
        assert sizes(session) == (10, 8, 5)
    assert sizes(session) == (4, 8, 2)


def test_heads_by_name() -> None:
    session = attached()
    with session.task("a", num_classes={"scores": 4, "box": 4}) as running:
        running.anneal(1, 1)
        assert sizes(session) == (4, 4, 2)
    with session.task("b", num_classes={"cls.scores": 2}) as running:
        running.anneal(1, 1)
        assert sizes(session) == (2, 8, 1)


@pytest.mark.parametrize(
    ("num_classes", "match"),
    [
        ({"sores": 4}, r"expected 'sores' to be the name of one head .* 0 heads match.*'cls.scores', 'box'"),
        ({"box": 0}, r"Expected `num_classes\['box'\]` to be a whole number"),
    ],
)
def test_what_cannot_be_asked_for(num_classes: dict[str, int], match: str) -> None:
    with pytest.raises(BadCallError, match=match):
        attached().task("a", num_classes=num_classes).prepare()


def test_a_head_that_cannot_be_resized() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = nn.Linear(4, 6), nn.Parameter(torch.randn(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.body(x).relu() @ self.out
            return out

    with pytest.raises(BadCallError, match=r"its heads are: parameter 'out'\. Leave num_classes out"):
        attached(Bare()).task("a", num_classes=4).prepare()
