"""The matching rule, picked names; the refusals are in `bad_matches`."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fgadahat_hooks.errors import MatchError, NoMatchError, UnsupportedLayerError
from fgadahat_hooks.spec import patterns as match_module
from fgadahat_hooks.spec.patterns import RULE, compile_pattern, is_glob, match
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
    ("targets", "exclude", "picked"),
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
def test_picks(targets: list[str], exclude: list[str], picked: list[str]) -> None:
    assert match(net(), targets, exclude, gateable) == picked


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a.*", "a.b.c", False),
        ("a?b", "a.b", False),
        ("a[!x]b", "a.b", False),
        ("a[.]b", "a.b", False),
        ("a.**", "a", False),
        ("a.**.b", "a.b", True),
        ("a.**.b", "a.x.y.b", True),
        ("a.**.b", "axb", False),
        ("**.b", "b", True),
        ("**.b", "xb", False),
        ("a*", "a", True),
        ("a[&&]", "a&", True),
        ("a[\\d]", "ad", True),
        ("a[\\d]", "a1", False),
        ("a[^b]", "a^", True),
        ("a+b", "aab", False),
        ("re:a", "ab", False),
        ("re:a|b", "b", True),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(name)) is fits


@pytest.mark.parametrize("pattern", ["a[", "a[]", "a[!]", "re:(", "re:a{99999999999999999999}", "", "re:", " a", "a "])
def test_patterns_that_cannot_be_read(pattern: str) -> None:
    with pytest.raises(MatchError, match=re.escape(RULE)):
        compile_pattern(pattern)


@given(st.text(alphabet="ab.*?[]!-\\^&~|(){}$ ", max_size=12))
def test_a_glob_of_any_letters_is_read_or_refused(text: str) -> None:
    if "--" in text or text.startswith("re:"):
        return
    try:
        compile_pattern(text)
    except MatchError:
        return
    assert is_glob(text) or compile_pattern(text).fullmatch(text)


def test_the_rule_in_errors_is_the_rule_of_the_module() -> None:
    assert " ".join(RULE.split()) in " ".join((match_module.__doc__ or "").split())


def test_a_shared_module_is_listed_once_by_its_first_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model.add_module("again", model[0])
    assert match(model, ["all"], [], gateable) == ["0"]
    assert match(model, ["again"], [], gateable) == ["0"]
    assert match(model, ["ag*"], [], gateable) == ["0"]
    with pytest.raises(NoMatchError):
        match(model, ["0"], ["again"], gateable)


def test_linear_and_conv_are_told_apart() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1))
    assert match(model, ["all-conv"], [], gateable) == ["0"]
    assert match(model, ["all-linear"], [], gateable) == ["1"]


def test_kinds_replace_the_shorthands() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1))
    kinds = {"first": lambda module: module is model[0]}
    assert match(model, ["first"], [], gateable, kinds) == ["0"]
    with pytest.raises(NoMatchError):
        match(model, ["all"], [], gateable, kinds)


def test_a_shorthand_wins_over_a_module_of_that_name() -> None:
    model = nn.Sequential()
    model.add_module("all", nn.Linear(1, 1))
    model.add_module("fc", nn.Linear(1, 1))
    assert match(model, ["all"], [], gateable) == ["all", "fc"]
    assert match(model, ["re:all"], [], gateable) == ["all"]


def test_the_model_itself_is_no_layer() -> None:
    with pytest.raises(NoMatchError, match="but the model has no layer that can be gated"):
        match(nn.Linear(1, 1), ["all"], [], gateable)


def test_a_gateable_layer_with_children_is_a_layer() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    model[0].add_module("child", nn.ReLU())
    assert match(model, ["0"], [], gateable) == ["0"]


def test_a_model_without_layers_is_told() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"'0' is a ReLU\. The model has no layer that can be gated\."):
        match(nn.Sequential(nn.ReLU()), ["0"], [], gateable)
    with pytest.raises(UnsupportedLayerError, match=r"picks only '0' \(ReLU\)\.$"):
        match(nn.Sequential(nn.ReLU()), ["re:."], [], gateable)


def test_no_targets() -> None:
    with pytest.raises(NoMatchError) as caught:
        match(net(), [], [], gateable)
    assert str(caught.value) == ("gates.targets: expected at least one pattern, got none. Write 'all' for all layers.")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older versions take flags anywhere, with a warning")
def test_an_expression_that_is_valid_only_alone_gets_no_wider_one() -> None:
    with pytest.raises(NoMatchError, match=r"found none\. Layers that can be gated: "):
        match(net(), ["re:(?i)CONV"], [], gateable)


def test_matching_leaves_the_model_as_it_was() -> None:
    model = net()
    keys, training = list(model.state_dict()), model.training
    match(model, ["all"], [], gateable)
    assert list(model.state_dict()) == keys
    assert model.training is training
