"""Reshapes and other moves: what a line says is what the elements do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.export.follow import follow
from fgadahat_hooks.export.slots import FIXED, Slots


class Moved(nn.Module):
    """Moves the units of a layer and lets another layer read them."""

    def __init__(self, move: Callable[[Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.conv, self.move, self.head = nn.Conv2d(2, 6, 1), move, nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.move(self.conv(x)))
        return logits


X = torch.randn(3, 2, 4, 5)
FOLLOWED: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
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
LEFT: dict[str, tuple[Callable[[Tensor], Tensor], int, str]] = {
    "split units": (lambda h: h.view(3, 2, 3, 20).transpose(1, 2).flatten(1), 120, "view (splits the units)"),
    "sum over units": (lambda h: h.sum(1).flatten(1), 20, "sum over the units"),
    "softmax over units": (lambda h: h.softmax(1).flatten(1), 120, "_softmax over the units"),
    "pad units": (lambda h: nn.functional.pad(h, (0, 0, 0, 0, 1, 1)).flatten(1), 160, "padding of units"),
    "roll units": (lambda h: h.roll(1, 1).flatten(1), 120, "roll"),
    "unit by unit": (lambda h: h[:, 3].flatten(1), 20, "select"),
    "unknown": (lambda h: torch.fft.fft(h, dim=1).real.flatten(1), 120, "_fft_r2c"),
    "by number": (lambda h: h[:, torch.tensor([1, 0])].flatten(1), 40, "index"),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_columns_are_joined_with_the_units_they_read(name: str) -> None:
    move, features = FOLLOWED[name]
    model = Moved(move, features)
    table = follow(model, X)
    conv, head = table.layers()
    truth = move(torch.arange(1.0, 7.0).view(1, 6, 1, 1).expand(3, 6, 4, 5).clone())
    if name in ("softmax", "pad", "there and back"):
        assert table.slots.free(conv.axes[0]).all()
        return
    units = truth.reshape(-1, features)[0]
    for column, unit in zip(head.axes[1].tolist(), units.tolist(), strict=True):
        assert table.slots.root(column) == table.slots.root(int(conv.axes[0][round(unit) - 1]))


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_followed_stays(name: str) -> None:
    move, features, reason = LEFT[name]
    table = follow(Moved(move, features), X)
    conv = next(iter(table.layers()))
    assert not table.slots.free(conv.axes[0]).any()
    assert table.slots.reason(int(conv.axes[0][0])) == f"read by {reason}"


def test_a_forward_in_inference_mode_is_followed() -> None:
    def infer(h: Tensor) -> Tensor:
        with torch.inference_mode():
            return h.relu().mean((2, 3))

    table = follow(Moved(infer, 6), X)
    conv, head = table.layers()
    assert [table.slots.root(s) for s in conv.axes[0].tolist()] == [table.slots.root(s) for s in head.axes[1].tolist()]


def test_operations_of_others_are_not_followed() -> None:
    @torch.library.custom_op("fh_test_export::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    table = follow(Moved(lambda h: twice(h).flatten(1), 120), X)
    conv = next(iter(table.layers()))
    assert not table.slots.free(conv.axes[0]).any()


def test_memory_that_is_shared_in_another_shape_stays() -> None:
    model = Moved(lambda h: h.mean((2, 3)) * model.get_buffer("whole")[:6], 6)
    model.register_buffer("whole", torch.rand(8))
    model.register_buffer("part", model.get_buffer("whole")[:6])
    table = follow(model, X)
    conv = next(iter(table.layers()))
    assert not table.slots.free(conv.axes[0]).any()


def test_layers_that_do_not_run_stay() -> None:
    model = Moved(lambda h: h.mean((2, 3)), 6)
    model.spare = nn.Linear(6, 6)
    table = follow(model, X)
    spare = next(entry for entry in table.layers() if entry.layer == "spare")
    assert {table.slots.reason(s) for axis in spare.axes.values() for s in axis.tolist()} == {"not used in evaluation"}


def test_slots_keep_the_first_reason() -> None:
    slots = Slots()
    a = slots.add(3)
    slots.join(a[:1], a[1:2], "never said")
    slots.fix(a[:1], "first")
    slots.fix(a[1:2], "second")
    assert [slots.reason(s) for s in a.tolist()] == ["first", "first", None]
    slots.join(a[2:], torch.tensor([FIXED]), "met something else")
    assert slots.reason(int(a[2])) == "met something else"


def test_classes_that_are_joined_share_a_reason() -> None:
    slots = Slots()
    a, b = slots.add(1), slots.add(1)
    slots.fix(b, "stays")
    slots.join(a, b, "never said")
    assert slots.reason(int(a)) == "stays"
    assert slots.root(int(a)) == slots.root(int(b))
