"""Gradients of a layer's weight by single samples, squared and summed, from one backward where that is possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution.scene import Scene
from fgadahat_hooks.importance.attribution.shapes import precise


class Calls:
    """What went into a layer and came out of it, call by call.

    Attributes:
        name: Dotted name of the layer.
        module: The layer.
        apart: Whether each sample's part of the weight's gradient can be told from these calls alone.
        slopes: The scores' gradient by each output.
        total: The scores' gradient by the weight, if it has one.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        """Know no call yet."""
        self.name = name
        self.module = module
        self.apart = True
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.slopes: list[Tensor] = []
        self.total: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The layer's weight."""
        return self.module.get_parameter("weight")

    def see(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook."""
        if kwargs or len(args) != 1 or not isinstance(output, Tensor):
            self.apart = False
            return None
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self.inputs.append(args[0].detach())
        self.outputs.append(output)
        return output.clone()  # what follows may write into it


@contextmanager
def watch(scene: Scene) -> Iterator[list[Calls]]:
    """Watch the layers themselves, before any gate, during the block."""
    layers = [Calls(name, scene.model.get_submodule(name)) for name in scene.sites]
    with HookSet.temporary() as hooks:
        for layer in layers:
            hooks.forward(layer.module, layer.see, first=True, kwargs=True)
        yield layers


def find_slopes(layers: Sequence[Calls], scores: Tensor) -> None:
    """Find the gradients by outputs and weights, and which layers keep their samples apart.

    They do if the first axis counts the samples and no score depends on another sample's row, which the last sample's
    score tells.
    """
    outputs = [output for layer in layers for output in layer.outputs]
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    joint = _gradients(scores.sum(), [*outputs, *weights])
    last = iter(_gradients(scores[-1], outputs))
    slopes, totals = iter(joint[: len(outputs)]), iter(joint[len(outputs) :])
    for layer in layers:
        layer.slopes = [next(slopes) for _ in layer.outputs]
        others = [next(last) for _ in layer.outputs]
        layer.total = next(totals) if layer.weight.requires_grad else None
        counted = all(len(x) == len(g) == len(scores) for x, g in zip(layer.inputs, layer.slopes, strict=True))
        layer.apart = bool(layer.outputs) and layer.apart and counted and not any(g[:-1].any() for g in others)


def squares_of_calls(layer: Calls, memory: float) -> Tensor | None:
    """Return the sum of squared gradients of samples, shape of the weight, `memory` bytes of them at once.

    None if the calls do not account for the weight's whole gradient, because something else uses the weight too.
    """
    weight = layer.weight.detach()
    count = max(1, int(memory // max(1, weight.numel() * weight.element_size())))
    square = precise(torch.zeros_like(weight))
    total = torch.zeros_like(square)
    for parts in zip(*(t.split(count) for t in (*layer.inputs, *layer.slopes)), strict=True):
        found = precise(_by_sample(layer.module, weight, parts))
        total += found.sum(0)
        square += found.square_().sum(0)
    if layer.total is None:
        return square
    allowed = torch.finfo(weight.dtype).eps ** 0.5 * (len(layer.slopes[0]) * square.sum()).sqrt()
    return square if bool((total - layer.total).norm() <= allowed) else None


def squares_one_by_one(layers: Sequence[Calls], scores: Tensor) -> dict[str, Tensor]:
    """Return the same by one backward a sample, whatever the model does with the weight.

    Raises:
        CapabilityError: A weight is frozen, so that it has no gradient.
    """
    frozen = [layer.name for layer in layers if not layer.weight.requires_grad]
    if frozen:
        raise CapabilityError(
            f"Fisher information of layer '{frozen[0]}' needs the gradient of its weight, because the model uses that "
            f"weight itself or mixes samples in it ({len(frozen)} such layers), but it is frozen. Set requires_grad, "
            "or add these layers to gates.exclude."
        )
    squares = {layer.name: precise(torch.zeros_like(layer.weight)) for layer in layers}
    for score in scores if layers else ():
        for layer, found in zip(layers, _gradients(score, [layer.weight for layer in layers]), strict=True):
            squares[layer.name] += precise(found).square()
    return squares


def _gradients(score: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    if not of or not score.requires_grad:
        return [torch.zeros_like(t) for t in of]
    found = torch.autograd.grad(score, of, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(of, found, strict=True)]


class _Bare(nn.Module):
    """A layer's own forward, without its hooks."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layer.forward(x[None]) for x in inputs)


def _by_sample(module: nn.Module, weight: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Return the gradient of each sample by the weight, over all calls, `(samples, *weight)`."""
    bare, calls = _Bare(module), len(parts) // 2

    def one(*sample: Tensor) -> Tensor:
        forward = lambda w: torch.func.functional_call(bare, {"layer.weight": w}, sample[:calls])  # noqa: E731
        pull = torch.func.vjp(forward, weight)[1]
        gradient: Tensor = pull(tuple(slope[None] for slope in sample[calls:]))[0]
        return gradient

    found: Tensor = torch.vmap(one)(*parts)
    return found
