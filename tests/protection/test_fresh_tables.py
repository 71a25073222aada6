"""The plan says when a table of vectors that nobody has trained will be frozen after the first task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh

IDS = torch.arange(12).view(2, 6)


class Text(nn.Module):
    """Words and positions, a hidden layer and a head."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.words = nn.Embedding(50, dim, padding_idx=0)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 6, dim))
        self.hidden, self.head = nn.Linear(dim, 24), nn.Linear(24, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.hidden(self.words(ids) + self.positions)
        out: Tensor = self.head(torch.relu(h).mean(1))
        return out


def advice(model: nn.Module, spec: Any = None) -> tuple[str, ...]:
    return fh.plan(model, {} if spec is None else spec, IDS).advice


@pytest.mark.parametrize("draw", [nn.init.normal_, nn.init.uniform_, nn.init.xavier_uniform_])
def test_a_table_as_it_was_drawn_is_named(draw: Any) -> None:
    model = Text()
    draw(model.words.weight)
    (text,) = advice(model)
    assert text.startswith("1 table(s) of vectors ('words.weight') look untrained, and no gate is on them")
    assert text in str(fh.plan(model, {}, IDS))


def test_a_trained_table_is_not_named() -> None:
    model = Text()
    with torch.no_grad():
        model.words.weight.mul_(torch.linspace(0.2, 2.0, 50)[:, None])  # frequent words have other norms than rare ones
    assert advice(model) == ()


OPEN = ({"rest": "per_task"}, {"rest": "share"}, {"gates": {"targets": ["all", "all-embedding"]}})


@pytest.mark.parametrize("spec", [*OPEN, fh.preset("hat", tasks=3)])
def test_a_table_that_later_tasks_train_is_not_named(spec: Any) -> None:
    assert advice(Text(), spec) == ()


def test_a_small_table_and_other_parameters_are_not_named() -> None:
    model = Text()
    model.words = nn.Embedding(7, 16)
    assert fh.plan(model, {}, IDS % 7).advice == ()


def test_a_session_and_its_report_say_it(tmp_path: Any) -> None:
    session = fh.attach(Text(), {}, IDS)
    assert session.plan.advice
    assert "Later tasks may learn less, because" in fh.report(session, tmp_path / "report.html").read_text()
