"""Heads are found from the outputs backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.errors import HeadNotFoundError
from fgadahat_hooks.graph.gateable import gateable_layers
from fgadahat_hooks.graph.trace import TraceRequest, trace
from fgadahat_hooks.graph.unit_graph import UnitGraph

WIDTH = 6


class Two(nn.Module):
    """A body and two output layers; `end` makes the outputs of them."""

    def __init__(self, end: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body, self.inner = nn.Linear(4, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.left, self.right = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        h = self.inner(self.body(x).relu())
        return self.end(self.left(h), self.right(h), h)


def graph_of(model: nn.Module, inputs: Any = None) -> UnitGraph:
    x = torch.randn(2, 4) if inputs is None else inputs
    return trace(model, x, TraceRequest(list(gateable_layers(model))))


@pytest.mark.parametrize(
    "end",
    [
        lambda a, b, _: (a, b),
        lambda a, b, _: {"scores": a.softmax(1), "boxes": 2 * b.sigmoid() - 1},
        lambda a, b, _: (a + b) / 2,
        lambda a, b, h: (a, b, h),
        lambda a, b, _: torch.stack([a, b]).mean(0).T,
        lambda a, b, _: F.interpolate(a[:, None], 5) * b.exp().sum(1)[:, None, None],
        lambda a, b, _: a.argmax(1) + b.topk(2).indices[:, 0],
        lambda a, b, _: a.masked_select(b.detach() > 0),
        lambda a, b, _: F.cross_entropy(a, torch.tensor([0, 1])) + b.square().mean(),
        lambda a, b, _: (a, F.layer_norm(b, (3,))),
    ],
)
def test_both_layers_give_the_output(end: Callable[..., Any]) -> None:
    graph = graph_of(Two(end))
    assert (graph.heads, list(graph.layers)) == (("left", "right"), ["body", "inner"])


@pytest.mark.parametrize(
    "end",
    [
        lambda a, b, h: F.layer_norm(a + b, (3,)),  # a norm mixes units
        lambda a, b, h: b.relu() @ a.T,  # so does a product of activations
        lambda a, b, h: h[:, :3] + a,  # an inner layer's units are added
        lambda a, b, h: h.new_zeros(2),
    ],
)
def test_no_layer_clearly_gives_the_output(end: Callable[..., Any]) -> None:
    with pytest.raises(HeadNotFoundError, match="so the head cannot be told") as caught:
        graph_of(Two(end))
    assert "'inner'" not in str(caught.value).partition("Name the layers")[0].partition("If ")[2]


def test_a_layer_that_another_layer_reads_is_no_head() -> None:
    class Model(Two):
        def forward(self, x: Tensor) -> Any:
            scores = self.left(self.inner(self.body(x)))
            padded = F.pad(scores, (0, WIDTH - 3))
            return scores, self.right(padded)

    assert graph_of(Model(lambda *_: None)).heads == ("right",)


def test_what_is_read_by_index_alone_is_an_output() -> None:
    """A detector's proposals: no gradient goes back, so its layer is trained by a loss of its own."""

    class Model(Two):
        def forward(self, x: Tensor) -> Any:
            h = self.inner(self.body(x))
            best = self.left(h).detach().softmax(1).topk(1).indices
            return self.right(h.gather(1, best) * h)

    graph = graph_of(Model(lambda *_: None))
    assert (graph.heads, list(graph.layers)) == (("left", "right"), ["body", "inner"])


# ------------------------------------------------------------------ weights that are no known layer's
class Bare(nn.Module):
    """A matrix beside the layers makes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(4, WIDTH), nn.Parameter(torch.randn(WIDTH, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x).relu() @ self.out
        return out


class Tied(nn.Module):
    """The table of words makes the scores of words too."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body = nn.Embedding(7, 4), nn.Linear(4, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.body(self.words(ids)).tanh(), self.words.weight)


def test_a_bare_matrix_and_a_tied_table_are_head_parameters() -> None:
    assert (graph_of(Bare()).heads, graph_of(Bare()).head_parameters) == ((), ("out",))
    tied = graph_of(Tied(), torch.tensor([[1, 2]]))
    assert (tied.heads, tied.head_parameters, list(tied.layers)) == ((), ("words.weight",), ["body"])


class Prototypes(nn.Module):
    """A class of its own, with one vector a class."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(3, WIDTH))

    def forward(self, h: Tensor) -> Tensor:
        return F.normalize(h, dim=1) @ F.normalize(self.vectors, dim=1).T


@pytest.mark.parametrize(
    "head",
    [
        Prototypes(),
        nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, 3)),
        nn.utils.spectral_norm(nn.Linear(WIDTH, 3)),
    ],
)
def test_a_module_whose_matrix_is_no_plain_weight_is_a_head(head: nn.Module) -> None:
    assert graph_of(nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), head)).heads == ("2",)
