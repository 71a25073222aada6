"""Ground truth for a unit graph: close random gates, and record what really reaches every weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.graph.tracing.forward import output_tensors
from fgadahat_hooks.graph.unit_graph import InputMap
from fgadahat_hooks.session.session import Session

SPEC = {"adjustment": {"mode": "hat"}}


@dataclass
class LayerTruth:
    """What reached the weight of one layer under random masks; a feature counts if any draw showed it.

    Attributes:
        live: `(features,)` bool: the features of which the graph claims nothing.
        zero: Those that the graph claims to be zero.
        missed: Those that are zero without a claim of the graph.
        wrong: Those that the graph claims to be zero and that are not.
    """

    live: Tensor
    zero: Tensor
    missed: Tensor
    wrong: Tensor

    @classmethod
    def unseen(cls, inputs: InputMap) -> LayerTruth:
        """Return the truth of a layer before the first draw."""
        return cls(inputs.live, *(torch.zeros(inputs.features, dtype=torch.bool) for _ in range(3)))

    def add(self, zero: Tensor, used: Tensor) -> None:
        """Add what one draw claimed and showed, `(features,)` bool each."""
        self.zero, self.missed = self.zero | zero, self.missed | (~used & ~zero)
        self.wrong = self.wrong | (used & zero)


@dataclass
class Truth:
    """What forwards under random masks showed.

    Attributes:
        layers: The result for each layer that the graph knows and a forward used.
    """

    layers: dict[str, LayerTruth] = field(default_factory=dict)

    @property
    def features(self) -> int:
        """Number of input features of all layers."""
        return sum(layer.live.numel() for layer in self.layers.values())

    @property
    def zero(self) -> int:
        """Number of those that the graph claimed to be zero in any draw."""
        return sum(int(layer.zero.sum()) for layer in self.layers.values())

    @property
    def missed(self) -> int:
        """Number of those that were zero in any draw without a claim of the graph."""
        return sum(int(layer.missed.sum()) for layer in self.layers.values())

    @property
    def wrong(self) -> tuple[str, ...]:
        """Names of layers with a feature that the graph claims to be zero and that is not."""
        return tuple(sorted(name for name, layer in self.layers.items() if layer.wrong.any()))

    @property
    def exact(self) -> float:
        """Share of the features for which the graph claims every zero."""
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
    """Put random binary masks into the gates; yield the masks."""
    attached = session._attached
    generator = torch.Generator().manual_seed(seed)
    masks = {
        name: (torch.rand(layer.units, generator=generator) < share_on).to(attached.gates[name].embedding)
        for name, layer in attached.graph.layers.items()
    }
    context = attached.gate_context
    context.masks, context.mode = masks, GateMode.USE
    try:
        yield masks
    finally:
        context.masks, context.mode = {}, GateMode.OPEN


_USES: tuple[tuple[Any, str, int, int], ...] = (
    (F, "linear", -1, 0),
    *((F, f"conv{kind}{axes}d", -1 - axes, 0) for kind in ("", "_transpose") for axes in (1, 2, 3)),
    (torch, "addmm", -1, 1),
)
"""Functions that use a weight: owner, name, axis of the input features, index of the input; the weight comes next."""


@contextmanager
def weight_inputs(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Record per layer which input features were ever non-zero in a use of its weight, by any module."""
    seen: dict[str, Tensor] = {}

    def note(x: Tensor, weight: Tensor, channel_axis: int) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return
        for name, module in layers.items():
            if module.weight is weight:
                used = (x != 0).movedim(channel_axis, -1).flatten(0, -2).any(0) if x.dim() > 1 else x != 0
                seen[name] = used | seen[name] if name in seen else used

    def recording(function: Callable[..., Tensor], channel_axis: int, place: int) -> Callable[..., Tensor]:
        def record(*args: Any, **kwargs: Any) -> Tensor:
            x = args[place] if len(args) > place else kwargs["input"]
            note(x, args[place + 1] if len(args) > place + 1 else kwargs["weight"], channel_axis)
            return function(*args, **kwargs)

        return record

    with ExitStack() as stack:
        for owner, name, channel_axis, place in _USES:
            stack.enter_context(patch.object(owner, name, recording(getattr(owner, name), channel_axis, place)))
        yield seen


def _silu(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x * torch.sigmoid(x)


@contextmanager
def never_vanishing() -> Iterator[None]:
    """Replace activations that clip by one that is zero at zero only: clipped values would hide what is exact."""
    with ExitStack() as stack:
        for name in ("relu", "relu_", "relu6", "hardtanh", "hardswish"):
            stack.enter_context(patch.object(F, name, _silu))
        for owner in (torch, Tensor):
            stack.enter_context(patch.object(owner, "relu", _silu))
        yield


def claimed_zero(inputs: InputMap, values: Tensor) -> Tensor:
    """Return which features of a layer the graph claims to be zero under masks, `(features,)` bool; unit by unit."""
    groups = torch.zeros_like(inputs.unit) if inputs.group is None else inputs.group
    sets: list[dict[int, bool]] = [{} for _ in range(inputs.features)]
    for feature, group, on in zip(inputs.feature.tolist(), groups.tolist(), values[inputs.unit] > 0, strict=True):
        sets[feature][group] = sets[feature].get(group, False) or bool(on)
    on = [live or (bool(s) and all(s.values())) for live, s in zip(inputs.live.tolist(), sets, strict=True)]
    return ~torch.tensor(on, dtype=torch.bool)


def measure(model: nn.Module, call: Callable[[nn.Module], Any], share_on: float = 0.5, draws: int = 2) -> Truth:
    """Attach, close random gates, compare the graph's claims with what happens, detach."""
    session = fh.attach(model, SPEC, call)
    truth = Truth()
    for seed in range(draws):
        observe(session, call, truth, share_on, seed)
    session.detach()
    return truth


def observe(
    session: Session,
    call: Callable[[nn.Module], Any],
    truth: Truth,
    share_on: float,
    seed: int,
    force: bool = False,
) -> None:
    """Run the model once under random masks; add to `truth` what was claimed and what happened.

    Args:
        session: A session that has learnt nothing.
        call: Calls the model.
        truth: Where the results are added.
        share_on: Expected share of open gates.
        seed: Seed of the masks.
        force: Whether open gates let random values through instead of the computed ones, so that gates are the only
            reason for zeros.
    """
    graph = session._attached.graph
    layers = {name: session.model.get_submodule(name) for name in graph.inputs}
    with ExitStack() as stack:
        masks = stack.enter_context(closed(session, share_on, seed))
        seen = stack.enter_context(weight_inputs(layers))
        if force:
            stack.enter_context(forced(session, masks, seed))
        stack.enter_context(torch.no_grad())
        call(session.model)
    values = graph.join(masks)
    for name, used in seen.items():
        inputs = graph.inputs[name]
        truth.layers.setdefault(name, LayerTruth.unseen(inputs)).add(claimed_zero(inputs, values), used)


@contextmanager
def forced(session: Session, masks: dict[str, Tensor], seed: int) -> Iterator[None]:
    """Replace what open gates let through by standard normal values."""
    generator = torch.Generator().manual_seed(seed)

    def replacing(mask: Tensor, axis: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            if torch._C._functorch.is_functorch_wrapped_tensor(out):
                return out
            on = mask.view([-1 if a == axis % out.dim() else 1 for a in range(out.dim())]) > 0
            return torch.where(on, torch.randn(out.shape, generator=generator).to(out), out)

        return hook

    with ExitStack() as stack:
        for name, layer in session._attached.graph.layers.items():
            for site in layer.sites if layer.position != "weight" else ():
                hook = replacing(masks[name], layer.output_axis)
                stack.callback(session.model.get_submodule(site).register_forward_hook(hook).remove)
        yield


# ------------------------------------------------------------------ free weights must not matter
def free_noise_matters(model: nn.Module, call: Callable[[nn.Module], Any], share_on: float = 0.5) -> bool:
    """Return whether noise in the weights that no open gate needs changes any bit of the model's output."""
    session = fh.attach(model, SPEC, call)
    graph = session._attached.graph
    with closed(session, share_on, seed=3) as masks, torch.no_grad():
        before = [t.clone() for t in output_tensors(call(model))]
        values = graph.join(masks)
        for name, layer in session._attached.layers().items():
            own = masks[name] > 0
            zero = claimed_zero(graph.inputs[name], values) if name in graph.inputs else torch.zeros(0).bool()
            if graph.layers[name].mixed_weight:
                own, zero = own.any().expand_as(own), torch.zeros_like(zero)
            free = ~layer.kind.unit_view(layer.module, own) | layer.kind.input_view(layer.module, zero)
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
