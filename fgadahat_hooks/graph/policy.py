"""How each parameter and buffer of a model is protected from later tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from fgadahat_hooks.graph.unit_graph import GATE, UnitGraph
from fgadahat_hooks.spec.attach_spec import AttachSpec

Protection = Literal["gated", "per_task", "frozen", "shared"]
Role = Literal["gated", "gain", "head", "norm", "rest"]

_NORM_POLICY: dict[str, Protection] = {"per_task": "per_task", "freeze": "frozen", "share": "shared"}


@dataclass(frozen=True)
class TensorPolicy:
    """How one tensor of the model is protected.

    Attributes:
        name: Its qualified name.
        owner: Name of the module that it belongs to.
        kind: Whether it is a parameter or a buffer.
        role: What it is part of: a gated layer, a head, a norm, or the rest.
        numel: Number of elements.
        protection: `gated` (adjustment rates), `per_task` (a copy for each task), `frozen` (after the first task), or
            `shared` (trained by every task: finished tasks may change).
        reason: The reason, in a few words.
    """

    name: str
    owner: str
    kind: Literal["parameter", "buffer"]
    role: Role
    numel: int
    protection: Protection
    reason: str


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation layer, of torch or of another library."""
    known = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    if isinstance(module, known):
        return True
    vectors = all(p is None or p.dim() <= 1 for p in module._parameters.values())
    return "norm" in type(module).__name__.lower() and vectors and not any(_own_children(module))


def _own_children(module: nn.Module) -> Iterator[nn.Module]:
    return (child for name, child in module.named_children() if name != GATE)


def own_tensors(model: nn.Module) -> Iterator[tuple[str, str, nn.Module, Tensor, bool]]:
    """Yield name, owner's name, owner, tensor, and whether it is a parameter, of every tensor that is not a gate's."""
    seen: set[int] = set()
    for owner, module in model.named_modules():
        if owner.split(".")[-1] == GATE:
            yield from ((f"{owner}.{n}", owner, module, t, True) for n, t in _gains(module))
            continue
        parts = [*((n, t, True) for n, t in module._parameters.items())]
        parts += [(n, t, False) for n, t in module._buffers.items()]
        for local, tensor, is_parameter in parts:
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{owner}.{local}" if owner else local, owner, module, tensor, is_parameter


def _gains(gate: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of a gate but its embedding, which its masks stand for once a task is finished."""
    return ((name, p) for name, p in gate.named_parameters() if name != "embedding")


def classify(model: nn.Module, graph: UnitGraph, spec: AttachSpec) -> list[TensorPolicy]:
    """Return the policy of every parameter and buffer of a model, gates left out."""
    heads = _head_tensors(model, graph)
    return [
        _policy(name, owner, _role(name, module, tensor, graph, heads), tensor, is_parameter, spec)
        for name, owner, module, tensor, is_parameter in own_tensors(model)
    ]


def _head_tensors(model: nn.Module, graph: UnitGraph) -> set[int]:
    """Return the ids of all tensors in heads: a head may be a block, or share its weight with the body."""
    modules = [model.get_submodule(head) for head in graph.heads]
    bare = (model.get_parameter(name) for name in graph.head_parameters)
    return {id(t) for t in bare} | {id(t) for m in modules for t in (*m.parameters(), *m.buffers())}


def _policy(name: str, owner: str, role: Role, tensor: Tensor, is_parameter: bool, spec: AttachSpec) -> TensorPolicy:
    protection, reason = _protection(role, tensor, is_parameter, spec)
    kind: Literal["parameter", "buffer"] = "parameter" if is_parameter else "buffer"
    return TensorPolicy(name, owner, kind, role, tensor.numel(), protection, reason)


def _role(name: str, module: nn.Module, tensor: Tensor, graph: UnitGraph, heads: set[int]) -> Role:
    owner, _, local = name.rpartition(".")
    if owner.split(".")[-1] == GATE:
        return "gain"
    if owner in graph.layers and local in ("weight", "bias"):
        return "gated"
    if id(tensor) in heads:
        return "head"
    return "norm" if is_norm(module) else "rest"


def _protection(role: Role, tensor: Tensor, is_parameter: bool, spec: AttachSpec) -> tuple[Protection, str]:
    if role == "gain":
        return "per_task", f"gates.gains: {spec.gates.gains}"
    if role == "gated":
        return "gated", f"adjustment rates, mode {spec.adjustment.mode}"
    if is_parameter and not tensor.requires_grad and role != "head":
        return "frozen", "requires_grad is False"
    if role == "head":
        return ("per_task" if spec.heads.mode == "per_task" else "shared"), f"heads.mode: {spec.heads.mode}"
    if role == "norm":
        return _NORM_POLICY[spec.norms], f"norms: {spec.norms}"
    if not is_parameter and spec.rest != "share":
        return "per_task", "a buffer outside norms, stored where it changes"
    return _NORM_POLICY[spec.rest], f"rest: {spec.rest}"
