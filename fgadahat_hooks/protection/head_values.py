"""Fresh values for the heads of a new task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.layers import LayerType, class_type_of, layer_type_of


def renew(tensors: TaskTensors, heads: tuple[str, ...], shared: set[int]) -> list[Tensor]:
    """Draw fresh head parameters as their constructors do; return all parameters of the heads that were drawn.

    What no constructor draws (a learnt temperature of a class of its own, a bare matrix) goes on with its value, in
    memory of its own.

    Args:
        tensors: Access to the model's tensors.
        heads: Names of the head modules; everything inside them is renewed.
        shared: Identities of parameters used outside the heads too (tied weights): left alone.
    """
    fresh: list[Tensor] = []
    for path, module in _modules_inside(tensors.model, heads):
        own = {f"{path}.{n}" if path else n: p for n, p in own_parameters(module).items()}
        draw = _drawing_of(module)
        if draw is not None and own and shared.isdisjoint(map(id, own.values())):
            for name, parameter in own.items():
                tensors.set(name, parameter.detach().clone())
            draw()
            fresh += [tensors.tensor(name) for name in own]
    return fresh


def undrawn_parameters(model: nn.Module, heads: tuple[str, ...]) -> Iterator[str]:
    """Yield the names of head parameters that no known layer draws: each task begins with those of the first."""
    for path, module in _modules_inside(model, heads):
        drawn = () if class_type_of(module) is None else ("weight", "bias", "weight_v", "weight_g", "weight_orig")
        yield from (
            f"{path}.{n}" if path else n for n, p in module._parameters.items() if p is not None and n not in drawn
        )


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a module without its children; those that make its weight count as its own."""
    found = {name: p for name, p in module._parameters.items() if p is not None}
    if parametrize.is_parametrized(module):
        made = cast("nn.Module", module.parametrizations)
        found |= {f"parametrizations.{name}": p for name, p in made.named_parameters()}
    return found


def _modules_inside(model: nn.Module, heads: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    for head in heads:
        yield from model.get_submodule(head).named_modules(prefix=head)


def _drawing_of(module: nn.Module) -> Callable[[], object] | None:
    """Return the function that draws a module's parameters anew, if there is one."""
    kind = layer_type_of(module)
    if kind is not None:
        return kind.reset_function(module)
    reparametrized = class_type_of(module)
    if reparametrized is not None and "weight" not in module._parameters:
        return lambda: _draw_reparametrized(module, reparametrized)
    return getattr(module, "reset_parameters", None)


# ------------------------------------------------------------------ weights that are made of other parameters
def _draw_reparametrized(module: nn.Module, kind: LayerType) -> None:
    """Draw a weight that a module makes of others (weight or spectral normalisation, pruning), as if it were plain."""
    weight, bias = _plain_values(module, kind)
    with torch.no_grad():
        if bias is not None and module._parameters.get("bias") is not None:
            cast("nn.Parameter", module._parameters["bias"]).copy_(bias)
        _set_weight(module, weight)


def _plain_values(module: nn.Module, kind: LayerType) -> tuple[Tensor, Tensor | None]:
    """Return what the constructor of the layer's class draws."""
    own = kind.own_class(module)
    plain = own.__new__(own)
    plain.__dict__ = {k: copy.copy(v) for k, v in vars(module).items() if k != "weight"}
    weight, bias = cast("Tensor", module.weight), cast("Tensor | None", module.bias)
    plain._parameters = {"weight": nn.Parameter(torch.empty_like(weight))}
    plain._parameters["bias"] = None if bias is None else nn.Parameter(torch.empty_like(bias))
    plain._buffers, plain._modules = {}, {}
    cast("Any", kind.reset_function(plain))()
    drawn = plain._parameters["bias"]
    return cast("Tensor", plain._parameters["weight"]).detach(), None if drawn is None else drawn.detach()


def _set_weight(module: nn.Module, weight: Tensor) -> None:
    """Set the parameters that make the weight, so that it is this one, or as near as its form allows."""
    own = module._parameters
    if parametrize.is_parametrized(module, "weight"):
        module.weight = weight  # by the parametrization's own inverse
    elif own.get("weight_v") is not None and own.get("weight_g") is not None:
        _set_normed(cast("nn.Parameter", own["weight_g"]), cast("nn.Parameter", own["weight_v"]), weight)
    elif own.get("weight_orig") is not None:  # spectral normalisation and pruning of torch.nn.utils
        cast("nn.Parameter", own["weight_orig"]).copy_(weight)


def _set_normed(g: nn.Parameter, v: nn.Parameter, weight: Tensor) -> None:
    """Set magnitude and direction of `torch.nn.utils.weight_norm`."""
    v.copy_(weight)
    kept = [d for d in range(weight.dim()) if g.dim() == weight.dim() and g.shape[d] > 1]
    reduced = [d for d in range(weight.dim()) if d not in kept]
    g.copy_(torch.linalg.vector_norm(weight, dim=reduced, keepdim=True).reshape(g.shape))


def tied_parameters(model: nn.Module, heads: tuple[str, ...]) -> set[int]:
    """Return the identities of the heads' parameters that other modules use too."""
    inside = {id(m) for head in heads for m in model.get_submodule(head).modules()}
    outside = {id(p) for m in model.modules() if id(m) not in inside for p in m._parameters.values() if p is not None}
    return outside & {id(p) for head in heads for p in model.get_submodule(head).parameters()}
