"""Every odd model: what the graph claims to be zero is zero, and weights that it claims to be free do not matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from fgadahat_hooks.graph.gateable import gateable_layers
from fgadahat_hooks.graph.trace import TraceRequest, trace
from tests.differential.truth import free_noise_matters, measure, never_vanishing, randomise
from tests.graph.tracing.odd_models import IMAGE, MODELS, STATEFUL, VECTOR, Image, Vector, build

EXACT = (
    "InPlaceIntoSlice CopyIntoSlices ZeroAView FillAView WriteThroughAlias OutArguments MovedChannels "
    "Flattened ChannelsLast SqueezeExcite Attention Functional SliceOfWeight ModuleAndFunction FunctionalConv "
    "MixingSubclass ActivatedSubclass KeepingSubclass WithPlainNorm WithBareNorm WithActivatedNorm NormBehindLinear "
    "CustomFunction FilledUnseen DropoutAndLists"
).split()
"""Models for which the graph claims every zero."""


def call_with(x: Tensor) -> Callable[[nn.Module], object]:
    return lambda model: model(x)


@pytest.mark.parametrize("name", MODELS)
def test_zero_means_zero(name: str) -> None:
    model, x = build(name)
    assert measure(randomise(model), call_with(x), draws=3).wrong == ()
    model, x = build(name)
    with never_vanishing():
        truth = measure(randomise(model), call_with(x), draws=3)
    assert truth.wrong == ()
    assert truth.exact == 1.0 or name not in EXACT


@pytest.mark.parametrize("name", [n for n in MODELS if n not in STATEFUL])
def test_free_weights_do_not_matter(name: str) -> None:
    model, x = build(name)
    assert not free_noise_matters(randomise(model), call_with(x))


# ------------------------------------------------------------------ the user's own hooks
def add_one(_: nn.Module, __: object, output: Tensor) -> Tensor:
    return output + 1.0


def mix_input(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0] + args[0].flip(1),)


HOOKS: dict[str, Callable[[nn.Module], object]] = {
    "output of a layer": lambda m: m.get_submodule("a").register_forward_hook(add_one),
    "output of a norm": lambda m: m.get_submodule("norm").register_forward_hook(add_one),
    "input of a layer": lambda m: m.get_submodule("b").register_forward_pre_hook(mix_input),
    "input of a norm": lambda m: m.get_submodule("norm").register_forward_pre_hook(mix_input),
    "output of the model": lambda m: m.register_forward_hook(add_one),
}


@pytest.mark.parametrize("where", HOOKS)
def test_hooks_of_the_user(where: str) -> None:
    for check in ("zero", "free"):
        model, x = build("WithPlainNorm")
        HOOKS[where](randomise(model))
        if where == "output of the model":
            model = Wrapped(model)
        if check == "zero":
            assert measure(model, call_with(x), draws=3).wrong == ()
        else:
            assert not free_noise_matters(model, call_with(x))


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.last = inner, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.inner(x))
        return out


# ------------------------------------------------------------------ other kinds of modules
def test_compiled_part() -> None:
    middle: Any = torch.compile(nn.Linear(8, 8), backend="eager")
    model = nn.Sequential(nn.Linear(4, 8), middle, nn.Linear(8, 3))
    with torch.compiler.set_stance("force_eager"):
        truth = measure(model, call_with(torch.randn(VECTOR)))
    assert (truth.exact, truth.wrong) == (1.0, ())


def test_flexible_attention() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            q = self.a(x)[:, None]
            mixed: Tensor = flex_attention(q, q, q)
            out: Tensor = self.head(mixed[:, 0].mean(1))
            return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = trace(Model(), torch.randn(2, 16, 16), TraceRequest(["a"]))
    assert graph.inputs["head"].live.all()


def test_a_shared_bias_is_not_gated() -> None:
    model = Vector()
    model.a.bias = model.b.bias
    assert set(gateable_layers(model)) == {"head"}


def test_two_weights_in_one_memory_are_not_gated() -> None:
    model = Vector()
    flat = torch.randn(2, 8, 8)
    model.b.weight, model.a.weight = nn.Parameter(flat[0]), nn.Parameter(flat[1][:, :4])
    assert set(gateable_layers(model)) == {"head"}


def test_a_tied_weight_is_not_gated_and_still_a_head() -> None:
    model = Tied()
    assert "head" not in gateable_layers(model)
    graph = trace(model, torch.tensor([[1, 2]]), TraceRequest(["hidden"]))
    assert graph.heads == ("head",)
    assert graph.inputs["head"].live.tolist() == [False] * 4
    assert graph.inputs["head"].unit.tolist() == [0, 1, 2, 3]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden = nn.Embedding(7, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.hidden(self.embedding(ids)).tanh())
        return out


def test_higher_order_operations_use_weights_in_unknown_ways() -> None:
    class Model(Vector):
        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            weight = self.b.weight
            mixed = torch.cond(x.abs().sum() > 0, lambda t, w: t @ w.t(), lambda t, w: t @ w, (h, weight))
            return self.end(mixed + self.b(h))

    graph = trace(Model(), torch.randn(VECTOR), TraceRequest(["a", "b"]))
    assert graph.layers["b"].mixed_weight
    assert graph.inputs["head"].live.all()


def test_image_models_work_without_a_batch_axis() -> None:
    class Model(Image):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.b(self.a(x).relu()).mean((1, 2)))
            return out

    assert measure(randomise(Model()), call_with(torch.randn(IMAGE[1:]))).exact > 0.7


def test_vectors_work_without_a_batch_axis() -> None:
    class Model(Vector):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.b(self.a(x).tanh()))
            return out

    truth = measure(randomise(Model()), call_with(torch.randn(4)))
    assert (truth.exact, truth.wrong) == (1.0, ())
