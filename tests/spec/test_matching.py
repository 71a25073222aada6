"""Which layers of a model patterns select; the error cases are in `bad_matches`."""

from __future__ import annotations

import sys

import pytest
from torch import nn

from fgadahat_hooks.errors import NoMatchError, UnsupportedLayerError
from fgadahat_hooks.spec.matching import match
from tests.support.bad_matches import gateable, net

LAYERS = [
    "stem",
    "layer1.0.conv1",
    "layer1.0.conv2",
    "layer1.1.conv1",
    "layer1.1.conv2",
    "layer2.0.conv1",
    "layer2.0.conv2",
]


@pytest.mark.parametrize(
    ("targets", "exclude", "selected"),
    [
        (["all"], [], LAYERS),
        (["all-conv"], [], LAYERS),
        (["stem"], [], LAYERS[:1]),
        (["layer2.0.conv2", "stem", "stem"], [], [LAYERS[0], LAYERS[6]]),
        (["layer1.0.conv?"], [], LAYERS[1:3]),
        (["layer1.*.conv1"], [], [LAYERS[1], LAYERS[3]]),
        (["layer*.*.conv1"], [], LAYERS[1::2]),
        (["*"], [], LAYERS[:1]),
        (["**"], [], LAYERS),
        (["layer1.**"], [], LAYERS[1:5]),
        (["**.conv1"], [], LAYERS[1::2]),
        (["**.stem"], [], LAYERS[:1]),
        (["layer**2"], [], LAYERS[2::2]),
        (["layer[12].0.*"], [], [*LAYERS[1:3], *LAYERS[5:]]),
        (["layer[!1].0.*"], [], LAYERS[5:]),
        (["layer[1-9].1.conv[!2-9]"], [], LAYERS[3:4]),
        (["re:layer\\d\\.0\\.conv1"], [], [LAYERS[1], LAYERS[5]]),
        (["re:.*(stem|2)"], [], LAYERS[::2]),
        (["all"], ["stem"], LAYERS[1:]),
        (["all"], ["layer1.**", "**.conv2"], [LAYERS[0], LAYERS[5]]),
        (["layer1.**"], ["stem"], LAYERS[1:5]),
    ],
)
def test_selected_layers(targets: list[str], exclude: list[str], selected: list[str]) -> None:
    assert match(net(), targets, exclude, gateable) == selected


def test_a_shared_module_is_listed_once_by_its_first_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model.add_module("again", model[0])
    assert match(model, ["all"], [], gateable) == ["0"]
    assert match(model, ["again"], [], gateable) == ["0"]
    assert match(model, ["ag*"], [], gateable) == ["0"]
    with pytest.raises(NoMatchError):
        match(model, ["0"], ["again"], gateable)


def test_linear_and_conv_shorthands_differ() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1))
    assert match(model, ["all-conv"], [], gateable) == ["0"]
    assert match(model, ["all-linear"], [], gateable) == ["1"]


def test_kinds_replace_the_shorthands() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1))
    kinds = {"first": lambda module: module is model[0]}
    assert match(model, ["first"], [], gateable, kinds) == ["0"]
    with pytest.raises(NoMatchError):
        match(model, ["all"], [], gateable, kinds)


def test_a_shorthand_takes_precedence_over_a_module_of_that_name() -> None:
    model = nn.Sequential()
    model.add_module("all", nn.Linear(1, 1))
    model.add_module("fc", nn.Linear(1, 1))
    assert match(model, ["all"], [], gateable) == ["all", "fc"]
    assert match(model, ["re:all"], [], gateable) == ["all"]


def test_the_model_itself_is_not_a_layer() -> None:
    with pytest.raises(NoMatchError, match="but the model has no layer that can be gated"):
        match(nn.Linear(1, 1), ["all"], [], gateable)


def test_a_gateable_layer_with_children_is_a_layer() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    model[0].add_module("child", nn.ReLU())
    assert match(model, ["0"], [], gateable) == ["0"]


def test_the_message_says_that_a_model_has_no_layers() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"'0' is a ReLU\. The model has no layer that can be gated\."):
        match(nn.Sequential(nn.ReLU()), ["0"], [], gateable)
    with pytest.raises(UnsupportedLayerError, match=r"picks only '0' \(ReLU\)\.$"):
        match(nn.Sequential(nn.ReLU()), ["re:."], [], gateable)


def test_no_targets() -> None:
    with pytest.raises(NoMatchError) as caught:
        match(net(), [], [], gateable)
    assert str(caught.value) == ("gates.targets: expected at least one pattern, got none. Write 'all' for all layers.")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older versions take flags anywhere, with a warning")
def test_no_wider_pattern_is_suggested_for_an_expression_that_is_valid_only_alone() -> None:
    with pytest.raises(NoMatchError, match=r"found none\. Layers that can be gated: "):
        match(net(), ["re:(?i)CONV"], [], gateable)


def test_matching_does_not_change_the_model() -> None:
    model = net()
    keys, training = list(model.state_dict()), model.training
    match(model, ["all"], [], gateable)
    assert list(model.state_dict()) == keys
    assert model.training is training
