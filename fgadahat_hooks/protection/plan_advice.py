"""What the plan advises where layers are too narrow for the tasks, and where a task's copies take much memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn

from fgadahat_hooks.graph.policy import TensorPolicy
from fgadahat_hooks.spec.gates_spec import GatesSpec

_SHOWN = 3
_MUCH = 0.25
"""Advice is given where a task's copies are more than this part of the model."""


def narrow_layers(units: Mapping[str, int], tasks: int) -> list[str]:
    """Return the layers that have fewer units than there are tasks."""
    return [name for name, count in units.items() if count < tasks]


def advice_on_narrow_layers(units: Mapping[str, int], gates: GatesSpec) -> Iterator[str]:
    """Describe the layers that cannot give each task a unit of its own; for units by share alone."""
    narrow = narrow_layers(units, gates.tasks or 1) if gates.choose == "share" else []
    if narrow:
        yield (
            f"{_named(narrow)}: fewer units ({min(units[n] for n in narrow)} at least) than the {gates.tasks} tasks "
            "that are expected, so the last tasks get none of their own there. Widen these layers, or leave them out "
            "of the gates (gates.exclude) and give each task its own copy of them (rest: per_task)."
        )


def bytes_per_task(model: nn.Module, policies: Iterable[TensorPolicy]) -> dict[str, int]:
    """Return the bytes of each tensor that every task keeps its own copy of.

    Buffers outside norms are left out: tasks share them unless they change, which few do.
    """
    sizes = tensor_bytes(model)
    kept = [p for p in policies if p.protection == "per_task" and (p.kind == "parameter" or p.role != "rest")]
    return {policy.name: sizes.get(policy.name, 0) for policy in kept}


def tensor_bytes(model: nn.Module) -> dict[str, int]:
    """Return the bytes of each parameter and buffer, by name."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor.numel() * tensor.element_size() for name, tensor in tensors}


def advice_on_copies(model_bytes: int, copies: Mapping[str, int], policies: Sequence[TensorPolicy]) -> Iterator[str]:
    """Describe the copies of a task if they are a large part of the model."""
    total = sum(copies.values())
    rest = {p.name: copies[p.name] for p in policies if p.role == "rest" and p.name in copies}
    if total <= _MUCH * model_bytes or 2 * sum(rest.values()) < total:
        return
    largest = sorted(rest, key=lambda name: -rest[name])
    yield (
        f"each task keeps {megabytes(total)} of its own, {total / model_bytes:.0%} of the model, because no gate is on "
        f"{_named(largest)}. With pretrained weights set requires_grad=False there, or choose rest: freeze; else "
        f"{_gated_instead(largest[0])}."
    )


def _gated_instead(name: str) -> str:
    """Return how a tensor, or what replaces it, gets gates."""
    if name.endswith("in_proj_weight"):
        return "build attention from nn.Linear layers, as timm does: these get gates"
    return "build it from layers that get gates; embeddings get them by gates.targets: [all, all-embedding]"


def megabytes(count: int) -> str:
    """Return a number of bytes as text, in MB of 1,000,000 bytes, or in kB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    )


def advice_on_frozen_unused_layers(passed_over: Iterable[str], policies: Iterable[TensorPolicy]) -> Iterator[str]:
    """Describe the layers that the example inputs did not use, and that the first task alone could train."""
    frozen = {p.owner for p in policies if p.protection == "frozen" and p.kind == "parameter" and p.role == "rest"}
    names = [name for name in passed_over if name in frozen]
    if names:
        shown = ", ".join(f"'{name}'" for name in names[:3]) + (" and others" if len(names) > 3 else "")
        yield (
            f"{shown} have no gate, because the example inputs do not use them, and are frozen after the first task. "
            "If other inputs or training use them, trace with such inputs, or set rest: per_task."
        )
