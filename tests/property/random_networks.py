"""Small networks with random wiring: a list of steps, each of which reads values that are there already."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.small_models import SHAPE

CLASSES = 3
FUNCTIONS = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": F.silu}


class Step(NamedTuple):
    """One step.

    Attributes:
        kind: What it does.
        sources: Numbers of the values it reads; 0 is the network's input.
        options: What the module is made with, or the number of the step whose module is used again.
    """

    kind: str
    sources: tuple[int, ...]
    options: tuple[Any, ...] = ()


class Wired(nn.Module):
    """Runs its steps one after another; the last value goes into the head."""

    def __init__(self, steps: tuple[Step, ...], features: int) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleDict({f"s{n}": made for n, step in enumerate(steps, 1) if (made := _module(step))})
        self.head = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, step in enumerate(self.steps, 1):
            values.append(self._run(number, step, [values[source] for source in step.sources]))
        logits: Tensor = self.head(values[-1])
        return logits

    def _run(self, number: int, step: Step, read: list[Tensor]) -> Tensor:
        x = read[0]
        if f"s{number}" in self.layers:
            out: Tensor = self.layers[f"s{number}"](x)
        elif step.kind == "again":
            out = self.layers[f"s{step.options[0]}"](x)
        elif step.kind == "by hand":
            layer = self.layers[f"s{step.options[0]}"]
            out = F.linear(x, layer.weight, layer.bias)  # type: ignore[arg-type]
        elif step.kind in FUNCTIONS:
            out = FUNCTIONS[step.kind](x)  # type: ignore[operator]
        else:
            out = _JOINS[step.kind](read)
        return out


_JOINS: dict[str, Any] = {
    "add": lambda read: read[0] + read[1],
    "mul": lambda read: read[0] * torch.sigmoid(read[1]),
    "cat": lambda read: torch.cat(read, 1),
    "pool": lambda read: F.max_pool2d(read[0], 2),
    "flatten": lambda read: read[0].flatten(1),
    "mean": lambda read: read[0].mean((2, 3)),
    "half": lambda read: read[0].chunk(2, 1)[1],
}
_MODULES: dict[str, Any] = {
    "conv": lambda i, o, k, stride, groups, bias: nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=bias),
    "linear": nn.Linear,
    "batch norm": nn.BatchNorm2d,
    "batch norm 1d": nn.BatchNorm1d,
    "group norm": nn.GroupNorm,
    "layer norm": nn.LayerNorm,
    "average": nn.AvgPool2d,
}


def _module(step: Step) -> nn.Module | None:
    made: nn.Module | None = _MODULES[step.kind](*step.options) if step.kind in _MODULES else None
    return made


# ---------------------------------------------------------------- drawing
class _Drawing:
    """The steps so far, and the shape of each value."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [SHAPE]

    def add(self, kind: str, sources: tuple[int, ...], options: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        """Append a step whose value has a shape."""
        self.steps.append(Step(kind, sources, options))
        self.shapes.append(shape)

    def source(self) -> int:
        """Draw a value to read that is of the newest one's rank, most often the newest."""
        newest = len(self.shapes) - 1
        others = [n for n, shape in enumerate(self.shapes) if len(shape) == len(self.shapes[-1])]
        return newest if self.draw(st.integers(0, 3)) else self.draw(st.sampled_from(others))

    def one(self, kinds: dict[str, Any]) -> None:
        """Append one step of any of the kinds that fit."""
        source = self.source()
        fitting = {kind: made for kind, make in kinds.items() if (made := make(self, source)) is not None}
        layers = [kind for kind in ("conv", "linear") if kind in fitting]
        kind = self.draw(st.sampled_from([*sorted(fitting), *len(fitting) * layers]))
        self.add(kind, *fitting[kind]())


def _conv(d: _Drawing, source: int) -> Any:
    channels, side = d.shapes[source][:2]

    def make() -> Any:
        out, k, stride = d.draw(st.sampled_from([4, 6])), d.draw(st.sampled_from([1, 3])), d.draw(st.integers(1, 2))
        groups = d.draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0 and out % g == 0]))
        after = (side - 1) // stride + 1
        return (source,), (channels, out, k, stride, groups, d.draw(st.booleans())), (out, after, after)

    return make


def _linear(d: _Drawing, source: int) -> Any:
    def make() -> Any:
        options = (d.shapes[source][0], d.draw(st.sampled_from([5, 8])), d.draw(st.booleans()))
        return (source,), options, (options[1],)

    return make


def _same(*options: int, even: bool = False) -> Any:
    """Make a step that keeps the shape; -1 stands for the number of channels."""

    def fits(d: _Drawing, source: int) -> Any:
        shape = d.shapes[source]
        if even and shape[0] % 2:
            return None
        return lambda: ((source,), tuple(shape[0] if o == -1 else o for o in options), shape)

    return fits


def _shrinking(*options: int, half: bool = False) -> Any:
    """Make a step that halves the sides, or the channels."""

    def fits(d: _Drawing, source: int) -> Any:
        shape = d.shapes[source]
        if half:
            return None if shape[0] % 2 else lambda: ((source,), (), (shape[0] // 2, *shape[1:]))
        return None if shape[1] < 2 else lambda: ((source,), options, (shape[0], shape[1] // 2, shape[2] // 2))

    return fits


def _joining(kind: str) -> Any:
    """Make a step that reads two values: of the same shape, or for `cat` of the same sides."""

    def fits(d: _Drawing, source: int) -> Any:
        mine = d.shapes[source]
        from_ = 1 if kind == "cat" else 0
        others = [
            n for n, s in enumerate(d.shapes) if len(s) == len(mine) and s[from_:] == mine[from_:] and n != source
        ]
        if not others or (kind == "cat" and mine[0] > 12):
            return None

        def make() -> Any:
            other = d.draw(st.sampled_from(others))
            channels = mine[0] + d.shapes[other][0] if kind == "cat" else mine[0]
            return (source, other), (), (channels, *mine[1:])

        return make

    return fits


def _again(kind: str, of: str) -> Any:
    """Make a step that uses the module of an earlier one."""

    def fits(d: _Drawing, source: int) -> Any:
        shape = d.shapes[source]
        fitting = [n for n, s in enumerate(d.steps, 1) if s.kind == of and s.options[0] == shape[0]]
        if not fitting:
            return None

        def make() -> Any:
            number = d.draw(st.sampled_from(fitting))
            options = d.steps[number - 1].options
            sides = [(side - 1) // options[3] + 1 for side in shape[1:]]
            return (source,), (number,), (options[1], *sides)

        return make

    return fits


_BOTH = {
    **{name: _same() for name in FUNCTIONS},
    **{kind: _joining(kind) for kind in ("add", "mul", "cat")},
    "half": _shrinking(half=True),
}
_IMAGES = {
    **_BOTH,
    "conv": _conv,
    "batch norm": _same(-1),
    "group norm": _same(2, -1, even=True),
    "pool": _shrinking(),
    "average": _shrinking(2),
    "again": _again("again", "conv"),
}
_VECTORS = {
    **_BOTH,
    "linear": _linear,
    "batch norm 1d": _same(-1),
    "layer norm": _same(-1),
    "again": _again("again", "linear"),
    "by hand": _again("by hand", "linear"),
}


@st.composite
def blueprints(draw: st.DrawFn) -> tuple[tuple[Step, ...], int]:
    """Draw the steps of a network for images, and how many features its head reads."""
    d = _Drawing(draw)
    d.add("conv", *_conv(d, 0)())
    for _ in range(draw(st.integers(2, 7))):
        d.one(_IMAGES)
    channels, height, width = d.shapes[-1]
    flat = draw(st.sampled_from(["flatten", "mean"]))
    d.add(flat, (len(d.steps),), (), (channels * height * width if flat == "flatten" else channels,))
    for _ in range(draw(st.integers(1, 5))):
        d.one(_VECTORS)
    return tuple(d.steps), d.shapes[-1][0]
