"""The sparsity term of a running task."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.functional.mask import apply_linearised_mask
from fgadahat_hooks.functional.sparsity import linearised_regularization, regularization
from fgadahat_hooks.gates.attached_model import AttachedModel


class SparsityTerm:
    """`c R`, to be added to the loss of a batch (HAT Eq. 5)."""

    def __init__(self, attached: AttachedModel) -> None:
        """Compute nothing yet."""
        self._attached = attached
        self._linearised: tuple[Tensor, Tensor] | None = None

    def value(self, cumulative: Tensor | None) -> Tensor:
        """Return the term at the current scale, a scalar with gradient to the embeddings.

        Args:
            cumulative: `m^{<t}` of all units, joined; None before the graph is known.
        """
        attached = self._attached
        if not attached.gates:
            return torch.zeros(())
        gates = list(attached.gates.values())
        if cumulative is not None:
            attached.check_not_cast(cumulative)
        device = gates[0].embedding.device
        masks = [attached.gate_context.linearised_mask(gate) for gate in gates]
        value, slope = (torch.cat([part.to(device) for part in parts]) for parts in zip(*masks, strict=True))
        mask = apply_linearised_mask(torch.cat([gate.embedding.to(device) for gate in gates]), value, slope)
        return self._sparsity(mask, cumulative) * attached.spec.regularization.factor

    def _sparsity(self, mask: Tensor, cumulative: Tensor | None) -> Tensor:
        spec = self._attached.spec.regularization
        if not spec.budget:
            constant, weights = self._linear_form(mask, cumulative)
            return torch.add(constant, torch.dot(weights, mask))
        used = torch.zeros_like(mask) if cumulative is None else cumulative.to(mask)
        sizes = [gate.embedding.numel() for gate in self._attached.gates.values()]
        return regularization(mask.split(sizes), used.detach().split(sizes), spec.mode, spec.budget)

    def _linear_form(self, like: Tensor, cumulative: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the constant and the weights with which the term is linear in the masks; computed once a task."""
        known = self._linearised
        if known is None or known[1].device != like.device or len(known[1]) != len(like):
            used = torch.zeros_like(like) if cumulative is None else cumulative.to(like)
            known = linearised_regularization(used.detach(), self._attached.spec.regularization.mode)
            self._linearised = known
        return known
