"""Ground truth for a unit graph: close random gates, look at what really reaches every weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.gate import GateMode
from fgadahat_hooks.graph import InputMap
from fgadahat_hooks.session import Session
from fgadahat_hooks.tracing.forward import output_tensors

SPEC = {"adjustment": {"mode": "hat"}}


@dataclass
class Truth:
    """What one forward under random masks showed.

    Attributes:
        features: Input features of all layers that the graph knows.
        zero: Those that the graph says are zero.
        missed: Those that are zero and the graph does not say so.
        wrong: Names of layers with a feature that the graph says is zero and that is not.
    """

    features: int = 0
    zero: int = 0
    missed: int = 0
    wrong: tuple[str, ...] = ()

    @property
    def exact(self) -> float:
        """Share of the features of which the graph says just what is true."""
        return 1 - self.missed / max(1, self.features)


def randomise(model: nn.Module) -> nn.Module:
    """Give norms and biases random values, so that nothing is zero by initialisation."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if tensor.is_floating_point() and (tensor.dim() <= 1 or name in ("gamma", "layer_scale")):
                    noise = torch.rand(tensor.shape, generator=generator) + 0.5
                    sign = 1.0 if name != "bias" else torch.randn(tensor.shape, generator=generator).sign()
                    tensor.copy_(noise * sign)
    return model.eval()


@contextmanager
def closed(session: Session, share_on: float, seed: int) -> Iterator[dict[str, Tensor]]:
    """Put random binary masks into the gates."""
    runtime = session._runtime
    generator = torch.Generator().manual_seed(seed)
    masks = {
        name: (torch.rand(layer.units, generator=generator) < share_on).to(runtime.gates[name].embedding)
        for name, layer in runtime.graph.layers.items()
    }
    context = runtime.gate_context
    context.masks, context.mode = masks, GateMode.USE
    try:
        yield masks
    finally:
        context.masks, context.mode = {}, GateMode.OPEN


@contextmanager
def weight_inputs(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Record per layer which input features were ever non-zero in a use of its weight, by whomever."""
    seen: dict[str, Tensor] = {}
    linear, conv2d = F.linear, F.conv2d

    def note(x: Tensor, weight: Tensor, channel_axis: int) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return
        for name, module in layers.items():
            if module.weight is weight:
                used = (x != 0).movedim(channel_axis, -1).flatten(0, -2).any(0) if x.dim() > 1 else x != 0
                seen[name] = used | seen[name] if name in seen else used

    def seeing_linear(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        note(x, weight, -1)
        return linear(x, weight, *args, **kwargs)

    def seeing_conv2d(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        note(x, weight, -3)
        return conv2d(x, weight, *args, **kwargs)

    with patch.object(F, "linear", seeing_linear), patch.object(F, "conv2d", seeing_conv2d):
        yield seen


def _silu(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x * torch.sigmoid(x)


@contextmanager
def never_vanishing() -> Iterator[None]:
    """Put a function that is zero at zero only in place of those that cut off, which would hide what is exact."""
    with ExitStack() as stack:
        for name in ("relu", "relu_", "relu6", "hardtanh", "hardswish"):
            stack.enter_context(patch.object(F, name, _silu))
        for owner in (torch, Tensor):
            stack.enter_context(patch.object(owner, "relu", _silu))
        yield


def claimed_zero(inputs: InputMap, values: Tensor) -> Tensor:
    """Return which features of a layer the graph says are zero under masks, `(features,)` bool; unit by unit."""
    on = inputs.live.clone()
    on[inputs.feature[values[inputs.unit] > 0]] = True
    return ~on


def measure(model: nn.Module, call: Callable[[nn.Module], Any], share_on: float = 0.5, draws: int = 2) -> Truth:
    """Attach, close random gates, compare claims with what happens, detach."""
    session = fh.attach(model, SPEC, call)
    graph = session._runtime.graph
    layers = {name: model.get_submodule(name) for name in graph.inputs}
    truth = Truth()
    wrong: set[str] = set()
    for seed in range(draws):
        with closed(session, share_on, seed) as masks, weight_inputs(layers) as seen, torch.no_grad():
            call(model)
        values = graph.join(masks)
        for name, used in seen.items():
            zero = claimed_zero(graph.inputs[name], values)
            truth.features += used.numel()
            truth.zero += int(zero.sum())
            truth.missed += int((~used & ~zero).sum())
            wrong |= {name} if bool((used & zero).any()) else set()
    truth.wrong = tuple(sorted(wrong))
    session.detach()
    return truth


# ------------------------------------------------------------------ what is free must not matter
def free_noise_matters(model: nn.Module, call: Callable[[nn.Module], Any], share_on: float = 0.5) -> bool:
    """Return whether noise in the weights that no open gate needs changes what the model puts out, bit for bit."""
    session = fh.attach(model, SPEC, call)
    graph = session._runtime.graph
    with closed(session, share_on, seed=3) as masks, torch.no_grad():
        before = [t.clone() for t in output_tensors(call(model))]
        values = graph.join(masks)
        for name, layer in session._runtime.layers().items():
            own = masks[name] > 0
            zero = claimed_zero(graph.inputs[name], values) if name in graph.inputs else torch.zeros(0).bool()
            if graph.layers[name].whole:
                own, zero = own.any().expand_as(own), torch.zeros_like(zero)
            free = ~layer.kind.own_view(layer.module, own) | layer.kind.input_view(layer.module, zero)
            _overwrite(layer.module.get_parameter("weight"), free)
            bias = layer.module._parameters.get("bias")
            if bias is not None:
                _overwrite(bias, ~own)
        after = output_tensors(call(model))
    session.detach()
    return not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _overwrite(tensor: Tensor, free: Tensor) -> None:
    noise = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(5)) + 0.5
    tensor.copy_(torch.where(free, noise.to(tensor), tensor))
