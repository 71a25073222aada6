"""Propagation rules of moving operations: channels are where the elements of their units are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.export.channel_groups import UNTRACKED, ChannelGroups
from fgadahat_hooks.export.propagate import propagate


class Moved(nn.Module):
    """Applies a moving operation between two layers."""

    def __init__(self, move: Callable[[Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.conv, self.move, self.head = nn.Conv2d(2, 6, 1), move, nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.move(self.conv(x)))
        return logits


X = torch.randn(3, 2, 4, 5)
PROPAGATED: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "flatten": (lambda h: h.flatten(1), 120),
    "view": (lambda h: h.view(3, -1), 120),
    "merge": (lambda h: h.view(3, 6, 20).mean(2), 6),
    "there and back": (lambda h: h.flatten(1).view(3, 6, 20).sum(-1), 6),
    "permute": (lambda h: h.permute(0, 2, 3, 1), 6),
    "transpose": (lambda h: h.flatten(2).transpose(1, 2), 6),
    "last first": (lambda h: h.permute(0, 2, 3, 1).reshape(3, -1), 120),
    "unsqueeze": (lambda h: h.mean((2, 3)).unsqueeze(1), 6),
    "squeeze": (lambda h: h.mean((2, 3), keepdim=True).squeeze(-1).squeeze(2), 6),
    "expand": (lambda h: h.mean((2, 3))[None].expand(2, 3, 6), 6),
    "select": (lambda h: h[:, :, 1, 2], 6),
    "slice": (lambda h: h[:, 1:5, 0, 0], 4),
    "split": (lambda h: torch.cat(h.mean((2, 3)).split([2, 4], 1)[::-1], 1), 6),
    "unbind": (lambda h: h.unbind(2)[1].unbind(2)[0], 6),
    "roll": (lambda h: h.roll((1, 1), (2, 3)).flatten(1), 120),
    "pad": (lambda h: nn.functional.pad(h, (1, 0)).flatten(1), 144),
    "softmax": (lambda h: h.flatten(2).softmax(2).mean(2), 6),
    "max": (lambda h: h.amax((2, 3)), 6),
    "windows": (lambda h: h[..., :4].permute(0, 2, 3, 1).view(3, 2, 2, 2, 2, 6).transpose(2, 3).reshape(3, -1, 6), 6),
}
NOT_PROPAGATED: dict[str, tuple[Callable[[Tensor], Tensor], int, str]] = {
    "split units": (lambda h: h.view(3, 2, 3, 20).transpose(1, 2).flatten(1), 120, "view (splits the units)"),
    "sum over units": (lambda h: h.sum(1).flatten(1), 20, "sum over the units"),
    "softmax over units": (lambda h: h.softmax(1).flatten(1), 120, "_softmax over the units"),
    "pad units": (lambda h: nn.functional.pad(h, (0, 0, 0, 0, 1, 1)).flatten(1), 160, "padding of units"),
    "roll units": (lambda h: h.roll(1, 1).flatten(1), 120, "roll"),
    "unit by unit": (lambda h: h[:, 3].flatten(1), 20, "select"),
    "unknown": (lambda h: torch.fft.fft(h, dim=1).real.flatten(1), 120, "_fft_r2c"),
    "by number": (lambda h: h[:, torch.tensor([1, 0])].flatten(1), 40, "index"),
}


@pytest.mark.parametrize("name", PROPAGATED)
def test_columns_are_joined_with_the_units_they_read(name: str) -> None:
    move, features = PROPAGATED[name]
    model = Moved(move, features)
    table = propagate(model, X)
    conv, head = table.layers()
    truth = move(torch.arange(1.0, 7.0).view(1, 6, 1, 1).expand(3, 6, 4, 5).clone())
    if name in ("softmax", "pad", "there and back"):
        assert table.groups.removable(conv.channels[0]).all()
        return
    units = truth.reshape(-1, features)[0]
    for column, unit in zip(head.channels[1].tolist(), units.tolist(), strict=True):
        assert table.groups.group(column) == table.groups.group(int(conv.channels[0][round(unit) - 1]))


@pytest.mark.parametrize("name", NOT_PROPAGATED)
def test_what_no_rule_propagates_is_kept(name: str) -> None:
    move, features, reason = NOT_PROPAGATED[name]
    table = propagate(Moved(move, features), X)
    conv = next(iter(table.layers()))
    assert not table.groups.removable(conv.channels[0]).any()
    assert table.groups.reason(int(conv.channels[0][0])) == f"read by {reason}"


def test_a_forward_in_inference_mode_is_propagated() -> None:
    def infer(h: Tensor) -> Tensor:
        with torch.inference_mode():
            return h.relu().mean((2, 3))

    table = propagate(Moved(infer, 6), X)
    conv, head = table.layers()
    assert [table.groups.group(c) for c in conv.channels[0].tolist()] == [
        table.groups.group(c) for c in head.channels[1].tolist()
    ]


def test_custom_operations_are_not_propagated() -> None:
    @torch.library.custom_op("fh_test_export::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    table = propagate(Moved(lambda h: twice(h).flatten(1), 120), X)
    conv = next(iter(table.layers()))
    assert not table.groups.removable(conv.channels[0]).any()


def test_memory_that_is_shared_in_another_shape_is_kept() -> None:
    model = Moved(lambda h: h.mean((2, 3)) * model.get_buffer("whole")[:6], 6)
    model.register_buffer("whole", torch.rand(8))
    model.register_buffer("part", model.get_buffer("whole")[:6])
    table = propagate(model, X)
    conv = next(iter(table.layers()))
    assert not table.groups.removable(conv.channels[0]).any()


def test_layers_that_do_not_run_are_kept() -> None:
    model = Moved(lambda h: h.mean((2, 3)), 6)
    model.spare = nn.Linear(6, 6)
    table = propagate(model, X)
    spare = next(entry for entry in table.layers() if entry.layer == "spare")
    channels = torch.cat(list(spare.channels.values())).tolist()
    assert {table.groups.reason(c) for c in channels} == {"not used in evaluation"}


def test_groups_keep_the_first_reason() -> None:
    groups = ChannelGroups()
    a = groups.new_channels(3)
    groups.join(a[:1], a[1:2], "never used")
    groups.keep(a[:1], "first")
    groups.keep(a[1:2], "second")
    assert [groups.reason(c) for c in a.tolist()] == ["first", "first", None]
    groups.join(a[2:], torch.tensor([UNTRACKED]), "met something else")
    assert groups.reason(int(a[2])) == "met something else"


def test_channels_that_are_joined_share_a_reason() -> None:
    groups = ChannelGroups()
    a, b = groups.new_channels(1), groups.new_channels(1)
    groups.keep(b, "stays")
    groups.join(a, b, "never used")
    assert groups.reason(int(a)) == "stays"
    assert groups.group(int(a)) == groups.group(int(b))
