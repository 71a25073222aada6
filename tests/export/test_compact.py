"""The compact export: which units are removed, which are kept and why, and that nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError
from tests.support.exporting import finish
from tests.support.learning import logits

SHAPE = (3, 8, 8)


def images(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def with_masks(model: nn.Module, off: dict[str, list[int]], inputs: object = None) -> fh.Session:
    """Attach, and finish task `a` with these units off and all others on."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    session = fh.attach(model, None, images(2) if inputs is None else inputs)  # type: ignore[arg-type]
    with session.task("a") as task, torch.no_grad():
        task.anneal(1, 1)
        for name, embedding in session.embeddings.items():
            embedding.fill_(1.0)
            embedding[off.get(name, [])] = -1.0
    return session


def compact_export(session: fh.Session, x: Tensor | None = None) -> tuple[nn.Module, fh.ExportReport]:
    """Export, and check that the outputs are those of the task."""
    module, report = session.export("a", compact=True, report=True)
    x = images() if x is None else x
    with torch.no_grad():
        torch.testing.assert_close(module(x), logits(session, "a", x), rtol=1e-5, atol=1e-5)
    assert report.difference < 1e-9 or not report.double
    return module, report


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def sizes(module: nn.Module, layer: str, *names: str) -> tuple[int, ...]:
    return tuple(getattr(module.get_submodule(layer), name) for name in names)


class Net(nn.Module):
    """A network made of named layers and a forward function."""

    def __init__(self, forward: Callable[[nn.ModuleDict, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        self.at = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.at, x)


# ------------------------------------------------------------------ what is removed
def test_hidden_units_are_removed_with_their_rows_and_columns() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    module, report = compact_export(with_masks(model, {"1": [0, 3], "3": [4]}))
    assert shapes(module) == {
        "1.weight": (4, 192),
        "1.bias": (4,),
        "3.weight": (4, 4),
        "3.bias": (4,),
        "5.weight": (3, 4),
        "5.bias": (3,),
    }
    assert sizes(module, "1", "out_features") == (4,)
    assert sizes(module, "3", "in_features", "out_features") == (4, 4)
    assert report.removed == {"1": 2, "3": 1}
    assert report.kept == {}
    assert report.parameters == (192 * 6 + 6 + 6 * 5 + 5 + 15 + 3, 192 * 4 + 4 + 16 + 4 + 12 + 3)
    assert report.bytes == (4 * report.parameters.before, 4 * report.parameters.after)
    assert report.flops == (2 * 2 * (192 * 6 + 30 + 15), 2 * 2 * (192 * 4 + 16 + 12))


def test_a_channel_is_removed_with_its_norm_and_all_positions_of_its_map() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    module, report = compact_export(with_masks(model, {"0": [1]}))
    assert shapes(module)["5.weight"] == (3, 27)
    norm = module.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.num_features == 3
    assert len(norm.state_dict()["running_mean"]) == 3
    assert module.get_submodule("5").in_features == 27
    assert report.removed == {"0": 1}


def residual(at: nn.ModuleDict, x: Tensor) -> Tensor:
    h = F.relu(at["norm0"](at["stem"](x)))
    h = F.relu(h + at["norm1"](at["block"](h)))
    return at["head"](h.mean((2, 3)))  # type: ignore[no-any-return]


def residual_net() -> Net:
    norms = {f"norm{i}": nn.BatchNorm2d(4) for i in range(2)}
    convs = {"stem": nn.Conv2d(3, 4, 3), "block": nn.Conv2d(4, 4, 3, padding=1)}
    return Net(residual, **convs, **norms, head=nn.Linear(4, 2))


def test_a_residual_channel_is_removed_if_all_units_added_to_it_are_off() -> None:
    module, report = compact_export(with_masks(residual_net(), {"at.stem": [0, 1], "at.block": [0, 2]}))
    assert shapes(module)["at.block.weight"] == (3, 3, 3, 3)
    assert report.removed == {"at.stem": 1, "at.block": 1}
    assert report.kept == {
        "at.stem": {"not zero where 'at.head' reads it": 1},
        "at.block": {"not zero where 'at.block' reads it": 1},
    }


def test_depthwise_channels_are_removed_and_groups_updated() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.BatchNorm2d(6),
        nn.Hardswish(),
        nn.Conv2d(6, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    session = with_masks(model, {"0": [0, 1], "3": [1, 5]})
    module, report = compact_export(session)
    assert sizes(module, "3", "groups", "in_channels", "out_channels") == (4, 4, 4)
    assert report.removed == {"0": 2, "3": 2}  # channel 0 is dead, but the norm behind makes it a constant
    assert report.kept == {"0": {"not zero where '6' reads it": 1}}


def test_only_whole_convolution_groups_are_removed() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3), nn.ReLU(), nn.Conv2d(9, 2, 6), nn.Flatten()
    )
    session = with_masks(model, {"0": [0], "2": [0, 3, 4, 5]})
    module, report = compact_export(session)
    assert sizes(module, "2", "groups", "in_channels", "out_channels") == (2, 4, 6)
    assert shapes(module)["2.weight"] == (6, 2, 3, 3)
    assert report.removed == {"0": 2, "2": 3}


def test_squeeze_and_excitation() -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        h = F.silu(at["norm"](at["conv"](x)))
        scale = at["up"](F.relu(at["down"](h.mean((2, 3), keepdim=True)))).sigmoid()
        return at["head"]((h * scale).flatten(2).mean(2))  # type: ignore[no-any-return]

    layers = {"conv": nn.Conv2d(3, 6, 3), "down": nn.Conv2d(6, 4, 1), "up": nn.Conv2d(4, 6, 1)}
    model = Net(forward, **layers, norm=nn.BatchNorm2d(6), head=nn.Linear(6, 2))
    module, report = compact_export(with_masks(model, {"at.conv": [0, 5], "at.down": [1], "at.up": [2]}))
    assert report.removed == {"at.conv": 2, "at.down": 1, "at.up": 2}
    assert shapes(module)["at.up.weight"] == (4, 3, 1, 1)


def test_concatenated_channels() -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        h = torch.cat([F.relu(at["left"](x)), F.relu(at["right"](x))], 1)
        return at["head"](torch.cat([h, x], 1)).mean((2, 3))  # type: ignore[no-any-return]

    model = Net(forward, left=nn.Conv2d(3, 4, 1), right=nn.Conv2d(3, 5, 1), head=nn.Conv2d(12, 2, 1))
    module, report = compact_export(with_masks(model, {"at.left": [0], "at.right": [0, 4]}))
    assert shapes(module)["at.head.weight"] == (2, 9, 1, 1)
    assert report.removed == {"at.left": 1, "at.right": 2}


def test_vectors_that_belong_to_no_layer_are_cut_too() -> None:
    class Scaled(nn.Module):
        counts: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(192, 6), nn.Linear(6, 2)
            self.scale = nn.Parameter(torch.rand(6))
            self.register_buffer("counts", torch.rand(1, 6))

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.hidden(x.flatten(1))) * self.scale * self.counts
            logits: Tensor = self.head(h)
            return logits

    module, _ = compact_export(with_masks(Scaled(), {"hidden": [2, 3]}))
    assert shapes(module)["scale"] == (4,)
    assert tuple(module.get_buffer("counts").shape) == (1, 4)


# ------------------------------------------------------------------ what is kept
@pytest.mark.parametrize("function", ["sigmoid", "cos", "exp"])
def test_units_are_kept_before_a_function_that_is_not_zero_at_zero(function: str) -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        return at["head"](getattr(torch, function)(at["hidden"](x.flatten(1))))  # type: ignore[no-any-return]

    session = with_masks(Net(forward, hidden=nn.Linear(192, 6), head=nn.Linear(6, 2)), {"at.hidden": [0]})
    _, report = compact_export(session)
    assert report.removed == {}
    assert report.kept == {"at.hidden": {"not zero where 'at.head' reads it": 1}}


def test_units_are_kept_before_a_norm_over_them() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    _, report = compact_export(with_masks(model, {"1": [0]}))
    assert report.kept == {"1": {"read by native_layer_norm": 1}}


def test_units_are_removed_with_their_channels_of_a_batch_norm_behind_two_layers() -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        h = F.relu(at["norm"](torch.cat([at["left"](x), at["right"](x)], 1)))
        return at["head"](h).mean((2, 3))  # type: ignore[no-any-return]

    convs = {"left": nn.Conv2d(3, 2, 1), "right": nn.Conv2d(3, 2, 1), "head": nn.Conv2d(4, 2, 1)}
    module, report = compact_export(with_masks(Net(forward, **convs, norm=nn.BatchNorm2d(4)), {"at.left": [0]}))
    assert report.removed == {"at.left": 1}
    assert shapes(module)["at.norm.weight"] == (3,)


def test_one_unit_of_a_layer_is_kept() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.ReLU(), nn.Linear(3, 2))
    module, report = compact_export(with_masks(model, {"1": [0, 1, 2]}))
    assert shapes(module)["1.weight"] == (1, 192)
    assert report.kept == {"1": {"the last of its layer": 1}}


def test_outputs_of_the_model_are_kept() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    session = fh.attach(model, {"heads": {"names": []}}, images(2))
    finish(session, "a")
    module, report = session.export("a", compact=True, report=True)
    assert module(images()).shape == (4, 4, 8, 8)
    assert set(report.kept["0"]) == {"an output of the model"}


def test_attention_is_kept() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    session = fh.attach(model, {"heads": {"names": []}}, x)
    finish(session, "a")
    module, report = session.export("a", compact=True, report=True)
    assert set(report.removed) == {"linear1"}
    with torch.no_grad(), session.use("a"):
        torch.testing.assert_close(module(x), session.model.eval()(x))


def test_a_hard_coded_size_keeps_its_units_and_no_others() -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        h = F.relu(at["conv"](x)).mean((2, 3)).view(-1, 6)
        return at["head"](F.relu(at["hidden"](h)))  # type: ignore[no-any-return]

    layers = {"conv": nn.Conv2d(3, 6, 1), "hidden": nn.Linear(6, 5), "head": nn.Linear(5, 2)}
    _, report = compact_export(with_masks(Net(forward, **layers), {"at.conv": [0], "at.hidden": [1, 2]}))
    assert report.removed == {"at.hidden": 2}
    assert report.kept == {"at.conv": {"without it the forward raises RuntimeError": 1}}


@pytest.mark.parametrize("inputs", [None, torch.zeros(2, *SHAPE)], ids=["noise", "zeros"])
def test_a_number_that_depends_on_the_size_keeps_its_units(inputs: Tensor | None) -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        h = F.relu(at["hidden"](x.flatten(1)))
        return at["head"](h / h.shape[1])  # type: ignore[no-any-return]

    layers = {"hidden": nn.Linear(192, 6, bias=False), "head": nn.Linear(6, 2, bias=False)}
    _, report = compact_export(with_masks(Net(forward, **layers), {"at.hidden": [0]}, inputs))
    assert report.kept == {"at.hidden": {"without it the outputs change": 1}}


def test_channels_that_are_sliced_by_index_are_kept() -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        h = F.relu(at["hidden"](x.flatten(1)))
        return at["head"](torch.cat([h[:, :2], h[:, 4:]], 1))  # type: ignore[no-any-return]

    session = with_masks(Net(forward, hidden=nn.Linear(192, 8), head=nn.Linear(6, 2)), {"at.hidden": [0]})
    _, report = compact_export(session)
    assert report.removed == {}


def test_halves_that_are_multiplied_are_removed_in_pairs() -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        left, right = at["hidden"](x.flatten(1)).chunk(2, 1)
        return at["head"](F.silu(left) * right)  # type: ignore[no-any-return]

    session = with_masks(Net(forward, hidden=nn.Linear(192, 8), head=nn.Linear(4, 2)), {"at.hidden": [0, 3]})
    module, report = compact_export(session)
    assert report.removed == {"at.hidden": 4}
    assert shapes(module)["at.head.weight"] == (2, 2)


# ------------------------------------------------------------------ the rest
def test_shared_weights_stay_shared() -> None:
    def forward(at: nn.ModuleDict, x: Tensor) -> Tensor:
        h = F.relu(at["first"](x.flatten(1)))
        return at["head"](F.relu(at["shared"](h)) + F.relu(at["again"](h)))  # type: ignore[no-any-return]

    shared = nn.Linear(6, 4)
    again = nn.Linear(6, 4)
    again.weight = shared.weight
    model = Net(forward, first=nn.Linear(192, 6), shared=shared, again=again, head=nn.Linear(4, 2))
    module, report = compact_export(with_masks(model, {"at.first": [0, 1]}))
    assert report.removed == {"at.first": 2}
    assert module.get_parameter("at.shared.weight") is module.get_parameter("at.again.weight")
    assert module.get_submodule("at.again").in_features == 4


def test_a_function_that_calls_the_model_is_compared_in_single_precision() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 2))
    session = with_masks(model, {"1": [0]}, lambda m: m(images(2)))
    _, report = compact_export(session)
    assert (report.removed, report.double) == ({"1": 1}, False)
    assert report.difference < 1e-5


def test_leaves_session_and_plain_export_alone() -> None:
    session = with_masks(residual_net(), {"at.stem": [0], "at.block": [0]})
    before = copy.deepcopy(session.export("a").state_dict())
    session.export("a", compact=True)
    after = session.export("a").state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_modules_keep_their_classes_and_keys() -> None:
    session = with_masks(residual_net(), {"at.stem": [0], "at.block": [0]})
    plain, small = session.export("a"), session.export("a", compact=True)
    assert [type(m) for m in plain.modules()] == [type(m) for m in small.modules()]
    assert list(plain.state_dict()) == list(small.state_dict())
    copy.deepcopy(small).load_state_dict(small.state_dict())
    assert not any(m.training for m in small.modules())


def test_the_report_as_text() -> None:
    session = with_masks(residual_net(), {"at.stem": [0, 1], "at.block": [0]})
    _, report = session.export("a", compact=True, report=True)
    text = str(report)
    assert "parameters 286 -> 188 (66%)" in text
    assert "units removed: 2\n  at.stem: 1\n  at.block: 1" in text
    assert "units that are off and stay:\n  at.stem: 1, not zero where 'at.head' reads it" in text


def test_a_report_needs_a_compact_export() -> None:
    session = with_masks(residual_net(), {})
    with pytest.raises(BadCallError, match="Expected `compact=True` for a report"):
        session.export("a", report=True)


def test_no_task_and_no_gates_off() -> None:
    session = with_masks(residual_net(), {})
    module, report = compact_export(session)
    assert (report.removed, report.kept, report.difference) == ({}, {}, 0.0)
    assert report.parameters.before == report.parameters.after
    assert shapes(module) == shapes(session.export("a"))
