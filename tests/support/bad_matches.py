"""Patterns that do not fit a model, and the message of each."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from fgadahat_hooks.errors import MatchError, NoMatchError, UnsupportedLayerError
from tests.support.bad_specs import RULE

LAYERS = "'stem', 'layer1.0.conv1', 'layer1.0.conv2', 'layer1.1.conv1', 'layer1.1.conv2' and 2 more"
CONVS = (
    "'stem' (Conv2d), 'layer1.0.conv1' (Conv2d), 'layer1.0.conv2' (Conv2d), 'layer1.1.conv1' (Conv2d), "
    "'layer1.1.conv2' (Conv2d) and 2 more"
)


@dataclass(frozen=True)
class MatchCase:
    """Patterns for `net`, and the error they should raise."""

    name: str
    targets: list[str]
    exclude: list[str]
    error: type[MatchError]
    message: str


def net() -> nn.Module:
    """Make a small network whose modules have names like those of a ResNet."""

    def block() -> nn.Module:
        return nn.Sequential(
            OrderedDict(conv1=nn.Conv2d(4, 4, 3), norm=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 4, 3)),
        )

    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3),
            norm=nn.BatchNorm2d(4),
            layer1=nn.Sequential(block(), block()),
            layer2=nn.Sequential(block()),
            pool=nn.Sequential(nn.AvgPool2d(2)),
        )
    )


def gateable(module: nn.Module) -> bool:
    """Return whether the tests gate a module."""
    return isinstance(module, nn.Conv2d | nn.Linear)


MATCHES: list[MatchCase] = [
    MatchCase(
        "absent_name",
        ["layer1.0.convl"],
        [],
        NoMatchError,
        "gates.targets: expected the name of a module, got 'layer1.0.convl'. Did you mean 'layer1.0.conv2' or "
        f"'layer1.0.conv1' or 'layer2.0.conv2'? {RULE}",
    ),
    MatchCase(
        "last_part_of_a_name",
        ["conv1"],
        [],
        NoMatchError,
        "gates.targets: expected the name of a module, got 'conv1'. 3 layers end in it: 'layer1.0.conv1', "
        f"'layer1.1.conv1', 'layer2.0.conv1'; write '**.conv1' for all of them. {RULE}",
    ),
    MatchCase(
        "name_of_a_wrapped_model",
        ["module.stem"],
        [],
        NoMatchError,
        f"gates.targets: expected the name of a module, got 'module.stem'. Did you mean 'stem'? {RULE}",
    ),
    MatchCase(
        "shorthand_misspelt",
        ["all_conv"],
        [],
        NoMatchError,
        f"gates.targets: expected the name of a module, got 'all_conv'. Did you mean 'all-conv'? {RULE}",
    ),
    MatchCase(
        "nothing_like_it",
        ["transformer"],
        [],
        NoMatchError,
        f"gates.targets: expected the name of a module, got 'transformer'. Layers that can be gated: {LAYERS}. {RULE}",
    ),
    MatchCase(
        "a_norm",
        ["norm"],
        [],
        UnsupportedLayerError,
        "gates.targets: expected a layer that can be gated, but 'norm' is a BatchNorm2d. Layers that can be "
        f"gated: {LAYERS}.",
    ),
    MatchCase(
        "a_container",
        ["layer1"],
        [],
        UnsupportedLayerError,
        "gates.targets: expected a layer that can be gated, but 'layer1' is a Sequential, which holds other "
        "modules. Write 'layer1.**' for the 4 layers inside.",
    ),
    MatchCase(
        "a_container_of_nothing",
        ["pool"],
        [],
        UnsupportedLayerError,
        "gates.targets: expected a layer that can be gated, but 'pool' is a Sequential, which holds other "
        f"modules. Layers that can be gated: {LAYERS}.",
    ),
    MatchCase(
        "glob_of_containers",
        ["layer?"],
        [],
        UnsupportedLayerError,
        "gates.targets: expected layers that can be gated, but 'layer?' picks only 'layer1' (Sequential), "
        "'layer2' (Sequential). Write 'layer?.**' for the 6 layers inside.",
    ),
    MatchCase(
        "glob_of_norms",
        ["**.norm"],
        [],
        UnsupportedLayerError,
        "gates.targets: expected layers that can be gated, but '**.norm' picks only 'norm' (BatchNorm2d), "
        "'layer1.0.norm' (BatchNorm2d), 'layer1.1.norm' (BatchNorm2d), 'layer2.0.norm' (BatchNorm2d). Layers "
        f"that can be gated: {LAYERS}.",
    ),
    MatchCase(
        "glob_too_shallow",
        ["*.conv1"],
        [],
        NoMatchError,
        f"gates.targets: expected modules that fit '*.conv1', found none. Did you mean '**.conv1' (3 layers)? {RULE}",
    ),
    MatchCase(
        "glob_without_the_block",
        ["layer1.conv*"],
        [],
        NoMatchError,
        "gates.targets: expected modules that fit 'layer1.conv*', found none. Did you mean 'layer1.**.conv*' "
        f"(4 layers)? {RULE}",
    ),
    MatchCase(
        "glob_misspelt",
        ["layr1.*.conv?"],
        [],
        NoMatchError,
        "gates.targets: expected modules that fit 'layr1.*.conv?', found none. Similar names: "
        f"'layer1.1.conv2', 'layer1.1.conv1', 'layer1.0.conv2', 'layer1.0.conv1', 'layer2.0.conv2'. {RULE}",
    ),
    MatchCase(
        "glob_of_nothing",
        ["zz*"],
        [],
        NoMatchError,
        f"gates.targets: expected modules that fit 'zz*', found none. Layers that can be gated: {LAYERS}. {RULE}",
    ),
    MatchCase(
        "glob_never_closed",
        ["layer[1"],
        [],
        MatchError,
        f"gates.targets: expected a valid glob, got 'layer[1' ('[' needs letters and a ']'). {RULE}",
    ),
    MatchCase(
        "glob_with_bad_range",
        ["layer[2-1].*"],
        [],
        MatchError,
        f"gates.targets: expected a valid glob, got 'layer[2-1].*' (bad character range 2-1). {RULE}",
    ),
    MatchCase(
        "regex_of_a_part",
        ["re:conv"],
        [],
        NoMatchError,
        "gates.targets: expected modules that fit 're:conv', found none. Did you mean 're:.*(?:conv).*' (6 "
        f"layers)? {RULE}",
    ),
    MatchCase(
        "regex_of_containers",
        ["re:layer."],
        [],
        UnsupportedLayerError,
        "gates.targets: expected layers that can be gated, but 're:layer.' picks only 'layer1' (Sequential), "
        f"'layer2' (Sequential). Layers that can be gated: {LAYERS}.",
    ),
    MatchCase(
        "regex_that_is_none",
        ["re:*"],
        [],
        MatchError,
        f"gates.targets: expected a valid regular expression after 're:', got 're:*' (nothing to repeat). {RULE}",
    ),
    MatchCase(
        "shorthand_without_layers",
        ["all-linear"],
        [],
        NoMatchError,
        f"gates.targets: expected layers for the shorthand 'all-linear', but the model has only {CONVS}.",
    ),
    MatchCase(
        "exclude_absent",
        ["all"],
        ["layer9"],
        NoMatchError,
        "gates.exclude: expected the name of a module, got 'layer9'. Did you mean 'layer2' or 'layer1' or "
        f"'layer2.0'? {RULE}",
    ),
    MatchCase(
        "exclude_container",
        ["all"],
        ["layer2"],
        UnsupportedLayerError,
        "gates.exclude: expected a layer that can be gated, but 'layer2' is a Sequential, which holds other "
        "modules. Write 'layer2.**' for the 2 layers inside.",
    ),
    MatchCase(
        "exclude_glob_of_nothing",
        ["all"],
        ["zz*"],
        NoMatchError,
        f"gates.exclude: expected modules that fit 'zz*', found none. Layers that can be gated: {LAYERS}. {RULE}",
    ),
    MatchCase(
        "exclude_all",
        ["stem"],
        ["all"],
        NoMatchError,
        "gates.exclude: expected to leave some of the layers that gates.targets pick, got 'all', which leaves "
        "none. Remove an exclude pattern or make it narrower.",
    ),
    MatchCase(
        "several",
        ["conv1", "norm", "zz*"],
        ["layer1", "q"],
        MatchError,
        "5 patterns do not fit the model:\n  gates.targets: expected the name of a module, got 'conv1'. 3 "
        "layers end in it: 'layer1.0.conv1', 'layer1.1.conv1', 'layer2.0.conv1'; write '**.conv1' for all of "
        "them.\n  gates.targets: expected a layer that can be gated, but 'norm' is a BatchNorm2d. Layers that "
        f"can be gated: {LAYERS}.\n  gates.targets: expected modules that fit 'zz*', found none. Layers that "
        f"can be gated: {LAYERS}.\n  gates.exclude: expected a layer that can be gated, but 'layer1' is a "
        "Sequential, which holds other modules. Write 'layer1.**' for the 4 layers inside.\n  gates.exclude: "
        f"expected the name of a module, got 'q'. Layers that can be gated: {LAYERS}.\n{RULE}",
    ),
]
