from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.gateable import gateable_layers
from fgadahat_hooks.graph.trace import TraceRequest, trace
from fgadahat_hooks.graph.unit_graph import Activation, UnitGraph
from tests.graph.tracing.odd_models import IMAGE, VECTOR, Image, Vector, build


def graph_of(model: nn.Module, x: Tensor, after_norm: bool = True) -> UnitGraph:
    return trace(model, x, TraceRequest(list(gateable_layers(model)), after_norm=after_norm))


POSITIONS = {
    "WithPlainNorm": ("a", "after_norm", ("norm",)),
    "WithBareNorm": ("a", "after_norm", ("norm",)),
    "WithSigmoidNorm": ("a", "after_norm", ("norm",)),
    "WithActivatedNorm": ("a", "after_norm", ("norm",)),
    "WithPeekingNorm": ("a", "output", ("a",)),
    "WithBarePeekingNorm": ("a", "output", ("a",)),
    "NormBehindLinear": ("a", "after_norm", ("norm",)),
    "TwoNorms": ("a", "after_norm", ("n1", "n2")),
    "SharedNorm": ("a", "output", ("a",)),
    "RawAlsoRead": ("a", "output", ("a",)),
    "NormOfAPart": ("a", "output", ("a",)),
    "OtherNorms": ("b", "output", ("b",)),
    "Functional": ("a", "weight", ("",)),
    "FunctionalConv": ("b", "weight", ("",)),
    "ModuleAndFunction": ("b", "weight", ("", "b")),
    "BiasElsewhere": ("b", "weight", ("", "b")),
    "DirectForward": ("b", "weight", ("",)),
    "SliceOfWeight": ("b", "weight", ("",)),
    "CalledThrice": ("b", "output", ("b",)),
    "Attention": ("packed.out_proj", "weight", ("packed",)),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_where_the_gate_acts(name: str) -> None:
    layer, position, sites = POSITIONS[name]
    found = graph_of(*build(name)).layers[layer]
    assert (found.position, found.sites) == (position, sites)


def test_position_output_can_be_asked_for() -> None:
    found = graph_of(*build("WithPlainNorm"), after_norm=False).layers["a"]
    assert (found.position, found.sites, found.output_module) == ("output", ("a",), "a")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("WeightStandardised", "b"),
        ("MixingSubclass", "a"),
        ("KeepingSubclass", "a"),
        ("ScaledWeight", "b"),
        ("TransposedWeight", "b"),
        ("SwappedKernel", "b"),
        ("PermutedRows", "b"),
        ("ExpandedColumn", "b"),
        ("StoredTransposed", "b"),
        ("ReplacedParameters", "a"),
    ],
)
def test_mixed_weights(name: str, layer: str) -> None:
    graph = graph_of(*build(name))
    assert {n for n, found in graph.layers.items() if found.mixed_weight} == {layer}
    assert graph.inputs[layer].live.all()


@pytest.mark.parametrize("name", ["ActivatedSubclass", "Functional", "SliceOfWeight", "AutocastInside", "Checkpointed"])
def test_weights_that_are_not_mixed(name: str) -> None:
    assert not any(layer.mixed_weight for layer in graph_of(*build(name)).layers.values())


def test_raw_output_that_is_returned_is_gated_as_it_is() -> None:
    class Model(Image):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.a(x)
            return self.end(self.b(self.norm(h))), h

    model = Model().eval()
    assert trace(model, torch.randn(IMAGE), TraceRequest(["a", "b"], ["head"])).layers["a"].position == "output"
    assert trace(model, torch.randn(IMAGE), TraceRequest(["a", "b"])).heads == ("head",)


# ------------------------------------------------------------------ which units feed which inputs
def test_units_that_feed_a_layer() -> None:
    graph = graph_of(*build("MovedChannels"))
    inputs, offset = graph.inputs["b"], graph.layers["a"].offset
    assert inputs.resolved == 1.0
    assert dict(zip(inputs.feature.tolist(), (inputs.unit - offset).tolist(), strict=True)) == {
        0: 4, 1: 3, 2: 5, 3: 2, 4: 6, 5: 1, 6: 7, 7: 0,
    }  # fmt: skip


def test_the_first_layer_is_live() -> None:
    graph = graph_of(*build("CalledThrice"))
    assert graph.inputs["a"].live.all()
    assert not graph.inputs["a"].has_predecessor


def test_a_layer_that_is_no_target_is_live() -> None:
    model, x = build("InPlaceChain")
    graph = trace(model, x, TraceRequest(["b"]))
    assert graph.inputs["b"].live.all()
    assert graph.inputs["head"].live.all()
    assert list(graph.layers) == ["b"]


def test_units_are_numbered_in_the_order_of_execution() -> None:
    model, x = build("GroupedAndDepthwise")
    layers = trace(model, x, TraceRequest(["depthwise", "grouped", "a"])).layers
    assert {n: u.offset for n, u in layers.items()} == {"a": 0, "grouped": 8, "depthwise": 24}


# ------------------------------------------------------------------ outputs and activations
class Activated(Vector):
    def __init__(self, *functions: nn.Module) -> None:
        super().__init__()
        self.functions = nn.ModuleList(functions)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        total = torch.zeros(())
        for function in self.functions:
            total = total + function(h)
        return self.end(self.b(total))


@pytest.mark.parametrize(
    "function", [nn.ReLU(), nn.GELU("tanh"), nn.GELU(), nn.LeakyReLU(0.3), nn.ELU(0.7), nn.Tanh(), nn.ReLU6()]
)
def test_the_function_behind_a_gate(function: nn.Module) -> None:
    found = graph_of(Activated(function), torch.randn(VECTOR)).layers["a"].activation
    x = torch.randn(50)
    assert isinstance(found, Activation)
    torch.testing.assert_close(found(x), function(x), rtol=0, atol=0)


@pytest.mark.parametrize("functions", [[nn.Sigmoid()], [nn.ReLU(), nn.Tanh()], [nn.Identity()], [nn.PReLU()]])
def test_no_single_function_behind_a_gate(functions: list[nn.Module]) -> None:
    assert graph_of(Activated(*functions), torch.randn(VECTOR)).layers["a"].activation is None


def test_a_function_inside_a_norm_is_no_second_one() -> None:
    graph = graph_of(*build("WithActivatedNorm"))
    assert graph.layers["a"].output_module == "norm"
    assert graph.layers["a"].activation is None


def test_output_axis() -> None:
    assert graph_of(*build("NormBehindLinear")).layers["a"].output_axis == -2
    assert graph_of(*build("WithPlainNorm")).layers["a"].output_axis == -3
    packed = graph_of(*build("Attention")).layers["packed.out_proj"]
    assert (packed.output_module, packed.output_axis) == ("packed", -1)
    assert graph_of(*build("Functional")).layers["b"].output_module is None
