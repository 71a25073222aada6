from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.errors import HeadNotFoundError, NoMatchError, TraceError, UnreachedLayerError
from fgadahat_hooks.graph.gateable import gateable_layers
from fgadahat_hooks.graph.trace import ExampleInputs, TraceRequest, trace
from fgadahat_hooks.graph.unit_graph import UnitGraph
from tests.graph.tracing.odd_models import VECTOR, KeepingLinear, Vector, build


def graph_of(model: nn.Module, inputs: ExampleInputs, heads: list[str] | None = None) -> UnitGraph:
    return trace(model, inputs, TraceRequest(list(gateable_layers(model)), heads))


def sequential() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


# ------------------------------------------------------------------ which layers
def test_gateable_layers() -> None:
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(2, 2),
            "conv": nn.Conv2d(2, 2, 1),
            "bilinear": nn.Bilinear(2, 2, 2),
            "tables": nn.EmbeddingBag(2, 2),
            "norm": nn.BatchNorm1d(2),
            "lazy": nn.LazyLinear(3),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
            "attention": nn.MultiheadAttention(4, 2),
        }
    )
    model["again"] = model["linear"]
    assert list(gateable_layers(model)) == ["linear", "conv", "attention.out_proj"]


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_tied_layers_are_not_gateable(part: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    setattr(model[0], part, getattr(model[2], part))
    assert list(gateable_layers(model)) == ["1"]


# ------------------------------------------------------------------ example inputs
@pytest.mark.parametrize(
    "inputs",
    [torch.randn(2, 4), (torch.randn(2, 4),), [torch.randn(2, 4)], {"input": torch.randn(2, 4)}],
    ids=["tensor", "tuple", "list", "dict"],
)
def test_kinds_of_example_inputs(inputs: ExampleInputs) -> None:
    assert graph_of(sequential(), inputs).heads == ("2",)


def test_a_function_as_example_inputs() -> None:
    assert graph_of(sequential(), lambda m: {"logits": m(torch.randn(2, 4))}).heads == ("2",)


def test_example_inputs_that_the_model_writes_into_do_not_change() -> None:
    model, x = build("WritesItsInput")
    before = x.clone()
    graph_of(model, x)
    assert torch.equal(x, before)


# ------------------------------------------------------------------ the model is left as it was
class Stateful(Vector):
    steps: Tensor

    def __init__(self, fail: bool) -> None:
        super().__init__()
        self.fail, self.norm = fail, nn.BatchNorm1d(8)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        h = self.norm(self.a(x)) + torch.rand(8)
        if self.fail:
            raise ValueError("no")
        out: Tensor = self.head(self.b(h))
        return out


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_as_it_was(fail: bool) -> None:
    model = Stateful(fail)
    hook = model.a.register_forward_hook(lambda *_: None)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    dicts = {n: (set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    random, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    if fail:
        with pytest.raises(TraceError, match="raised ValueError"):
            graph_of(model, torch.randn(VECTOR, generator=torch.Generator()))
    else:
        graph_of(model, torch.randn(VECTOR, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert {n: (set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()} == {
        **dicts
    }
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name])
    hook.remove()


def test_tracing_twice_gives_the_same() -> None:
    model, x = build("Cache")
    one, two = graph_of(model, x), graph_of(model, x)
    assert one.layers == two.layers
    for name in one.inputs:
        assert torch.equal(one.inputs[name].live, two.inputs[name].live)
        assert torch.equal(one.inputs[name].unit, two.inputs[name].unit)


def test_lazy_layers_are_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(TraceError, match=r"'0\.weight', '0\.bias' have no shape yet\. Run one batch"):
        graph_of(model, torch.randn(VECTOR))
    assert isinstance(model[0], nn.LazyLinear)


# ------------------------------------------------------------------ heads
class Squeeze(nn.Module):
    """The head is a convolution, whose feature map is pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(F.relu(self.features(x))), 1)


class TwoHeads(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        h = self.b(self.a(x))
        return {"logits": self.head(h), "more": [self.other(h) * 2.0]}


class Ending(Vector):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.head(self.b(self.a(x))))
        return out


def test_a_convolution_as_head() -> None:
    assert graph_of(Squeeze(), torch.randn(2, 3, 8, 8)).heads == ("classifier.1",)


def test_two_heads() -> None:
    graph = graph_of(TwoHeads(), torch.randn(VECTOR))
    assert graph.heads == ("head", "other")
    assert list(graph.layers) == ["a", "b"]


def test_a_dense_map_as_output() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 7, 1))
    assert graph_of(model, torch.randn(2, 3, 8, 8)).heads == ("2",)


@pytest.mark.parametrize("end", [nn.LogSoftmax(-1), nn.Softmax(-1), nn.Sigmoid()])
def test_a_head_behind_what_keeps_the_meaning_of_units(end: nn.Module) -> None:
    assert graph_of(Ending(end), torch.randn(VECTOR)).heads == ("head",)


def test_an_unfound_head_names_the_way_to_the_output() -> None:
    model = Ending(nn.LayerNorm(3))
    with pytest.raises(HeadNotFoundError, match=r"'head' > native_layer_norm\. If 'head' .*heads\.names: \['head'\]"):
        graph_of(model, torch.randn(VECTOR))
    graph = graph_of(model, torch.randn(VECTOR), ["head"])
    assert (graph.heads, list(graph.layers)) == (("head",), ["a", "b"])


def test_a_model_without_any_layer_has_no_head() -> None:
    with pytest.raises(HeadNotFoundError, match=r"for a model without a head, set heads\.names: \[\]"):
        graph_of(nn.Sequential(nn.ReLU()), torch.randn(VECTOR))


def test_no_head_at_all() -> None:
    graph = graph_of(Ending(nn.LayerNorm(3)), torch.randn(VECTOR), [])
    assert (graph.heads, list(graph.layers)) == ((), ["a", "b", "head"])


# ------------------------------------------------------------------ unreached layers
class Branch(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if float(x.sum()) > 0:
            h = self.b(h)
        out: Tensor = self.head(h)
        return out


def named(model: nn.Module, inputs: ExampleInputs, *names: str) -> UnitGraph:
    """Trace with targets that the spec names in full."""
    return trace(model, inputs, TraceRequest(list(names), explicit=frozenset(names)))


def test_a_branch_that_the_example_does_not_take_is_passed_over() -> None:
    graph = graph_of(Branch(), -torch.ones(VECTOR))
    assert (list(graph.layers), dict(graph.passed_over)) == (["a"], {"b": "not used by the example inputs"})
    assert list(graph_of(Branch(), torch.ones(VECTOR)).layers) == ["a", "b"]


def test_a_branch_that_the_spec_names_and_the_example_does_not_take() -> None:
    with pytest.raises(UnreachedLayerError, match=r"never used 'b' on the example inputs.*Add it to gates\.exclude"):
        named(Branch(), -torch.ones(VECTOR), "a", "b")


def test_several_unreached_layers() -> None:
    class Model(Vector):
        def forward(self, x: Tensor) -> Tensor:
            return self.end(x.repeat(1, 2))

    with pytest.raises(UnreachedLayerError, match=r"'a', 'b' .*Add them to gates\.exclude"):
        named(Model(), torch.ones(VECTOR), "a", "b")
    with pytest.raises(NoMatchError, match=r"is a head \('head'\), or cannot be gated \('a': not used by"):
        graph_of(Model(), torch.ones(VECTOR))


def test_a_weight_that_is_only_used_transformed() -> None:
    class Model(Vector):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(F.linear(self.a(x), F.normalize(self.b.weight)))
            return out

    reason = "the weight of 'b' is used only after it was transformed"
    with pytest.raises(UnreachedLayerError, match=reason):
        named(Model(), torch.ones(VECTOR), "a", "b")
    assert graph_of(Model(), torch.ones(VECTOR)).passed_over == {"b": reason}


def test_a_layer_whose_output_is_no_tensor() -> None:
    class Pair(KeepingLinear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), None

    class Model(Vector):
        def __init__(self) -> None:
            super().__init__()
            self.a = Pair(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.b(self.a(x)[0]))
            return out

    with pytest.raises(UnreachedLayerError, match=r"'a' puts out tuple with no axis -1 of 8 units"):
        named(Model(), torch.ones(VECTOR), "a", "b")


class Choosing(nn.Module):
    """A router's experts and a head for each task: the inputs choose which of them run."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.ReLU()) for _ in range(3))
        self.heads = nn.ModuleDict({"cats": nn.Linear(8, 2), "dogs": nn.Linear(8, 2)})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.heads["dogs" if float(x[0, 0]) > 0 else "cats"](self.experts[int(x[0, 1])](x))
        return out


def test_experts_and_heads_that_other_inputs_choose() -> None:
    graph = graph_of(Choosing(), torch.ones(VECTOR))
    assert (set(graph.heads), set(graph.layers)) == (
        {"heads.dogs", "heads.cats"}, {"experts.0.0", "experts.1.0", "experts.2.0"},
    )  # fmt: skip
    assert (set(graph.unseen), dict(graph.passed_over)) == ({"experts.0.0", "experts.2.0"}, {})
    assert graph.inputs["experts.0.0"].live.all()
