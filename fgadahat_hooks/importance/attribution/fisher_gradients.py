"""Per-sample gradients of a layer's weight, squared and summed, from one backward where that is possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.gradients import summed_gradients
from fgadahat_hooks.importance.attribution.shapes import at_least_float32
from fgadahat_hooks.layers import weight_of


class LayerCalls:
    """Inputs and outputs of a layer, call by call.

    Attributes:
        name: Dotted name of the layer.
        module: The layer.
        separable: Whether these calls alone give each sample's part of the weight's gradient.
        output_gradients: The gradient of the summed scores by each output.
        weight_gradient: The gradient of the summed scores by the weight, if it requires one.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        """Start with no call."""
        self.name = name
        self.module = module
        self.separable = True
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.output_gradients: list[Tensor] = []
        self.weight_gradient: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The layer's weight."""
        return weight_of(self.module)

    def record(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook."""
        if kwargs or len(args) != 1 or not isinstance(output, Tensor):
            self.separable = False
            return None
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self.inputs.append(args[0].detach())
        self.outputs.append(output)
        return output.clone()  # later layers may write into it


@contextmanager
def record_calls(batch: AttributionBatch) -> Iterator[list[LayerCalls]]:
    """Record the calls of the layers themselves, before any gate, during the block."""
    layers = [LayerCalls(name, batch.model.get_submodule(name)) for name in batch.sites]
    with HookSet.temporary() as hooks:
        for layer in layers:
            hooks.forward(layer.module, layer.record, first=True, kwargs=True)
        yield layers


def set_gradients(layers: Sequence[LayerCalls], scores: Tensor) -> None:
    """Set each layer's gradients by outputs and weight, and whether its samples are separable.

    They are if the first axis counts the samples and no score depends on another sample's row; the latter is tested
    with the last sample's score.
    """
    outputs = [output for layer in layers for output in layer.outputs]
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    by_all = iter(summed_gradients(scores, [*outputs, *weights], retain_graph=True))
    of_last_score = iter(summed_gradients(scores[-1], outputs, retain_graph=True))
    for layer in layers:
        layer.output_gradients = list(islice(by_all, len(layer.outputs)))
        last = list(islice(of_last_score, len(layer.outputs)))
        layer.separable = layer.separable and _is_separable(layer, last, len(scores))
    for layer in layers:
        layer.weight_gradient = next(by_all) if layer.weight.requires_grad else None


def _is_separable(layer: LayerCalls, gradients_of_last_score: Sequence[Tensor], samples: int) -> bool:
    calls = zip(layer.inputs, layer.output_gradients, strict=True)
    rows_are_samples = all(len(x) == len(g) == samples for x, g in calls)
    return bool(layer.outputs) and rows_are_samples and not any(g[:-1].any() for g in gradients_of_last_score)


def squared_gradients_from_calls(layer: LayerCalls, memory: float) -> Tensor | None:
    """Return the sum over samples of squared gradients, shape of the weight, with `memory` bytes of gradients at once.

    None if the calls do not account for the weight's whole gradient, because something else uses the weight too.
    """
    weight = layer.weight.detach()
    count = max(1, int(memory // max(1, weight.numel() * weight.element_size())))
    square = at_least_float32(torch.zeros_like(weight))
    total = torch.zeros_like(square)
    for parts in zip(*(t.split(count) for t in (*layer.inputs, *layer.output_gradients)), strict=True):
        found = at_least_float32(_per_sample_gradients(layer.module, weight, parts))
        total += found.sum(0)
        square += found.square_().sum(0)
    if layer.weight_gradient is None:
        return square
    allowed = torch.finfo(weight.dtype).eps ** 0.5 * (len(layer.output_gradients[0]) * square.sum()).sqrt()
    return square if bool((total - layer.weight_gradient).norm() <= allowed) else None


def squared_gradients_one_by_one(layers: Sequence[LayerCalls], scores: Tensor) -> dict[str, Tensor]:
    """Return the same from one backward a sample, for any use of the weight by the model.

    Raises:
        CapabilityError: A weight is frozen, so it has no gradient.
    """
    frozen = [layer.name for layer in layers if not layer.weight.requires_grad]
    if frozen:
        raise CapabilityError(
            f"Fisher information of layer '{frozen[0]}' needs the gradient of its weight, because the model uses that "
            f"weight itself or mixes samples in it ({len(frozen)} such layers), but it is frozen. Set requires_grad, "
            "or add these layers to gates.exclude."
        )
    squares = {layer.name: at_least_float32(torch.zeros_like(layer.weight)) for layer in layers}
    for score in scores if layers else ():
        found = summed_gradients(score, [layer.weight for layer in layers], retain_graph=True)
        for layer, gradient in zip(layers, found, strict=True):
            squares[layer.name] += at_least_float32(gradient).square()
    return squares


class _WithoutHooks(nn.Module):
    """A layer's own forward, without its hooks."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layer.forward(x[None]) for x in inputs)


def _per_sample_gradients(module: nn.Module, weight: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Return each sample's gradient by the weight, summed over all calls, `(samples, *weight)`."""
    layer, calls = _WithoutHooks(module), len(parts) // 2

    def gradient_of(*sample: Tensor) -> Tensor:
        forward = lambda w: torch.func.functional_call(layer, {"layer.weight": w}, sample[:calls])  # noqa: E731
        vjp = torch.func.vjp(forward, weight)[1]
        gradient: Tensor = vjp(tuple(g[None] for g in sample[calls:]))[0]
        return gradient

    found: Tensor = torch.vmap(gradient_of)(*parts)
    return found
