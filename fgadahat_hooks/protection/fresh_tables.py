"""Tables of vectors (words, positions) that the first task alone trains, in a model that was not pretrained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.policy import TensorPolicy

FEWEST_ROWS = 8
FEWEST_COLUMNS = 8
SPREAD = 1.5
"""How many times the spread of independent draws the rows' norms may have in a table that was not trained."""


def frozen_fresh_tables(model: nn.Module, policies: Iterable[TensorPolicy]) -> Iterator[str]:
    """Describe the tables that later tasks cannot train and that nobody has trained before."""
    frozen = [p for p in policies if p.protection == "frozen" and p.kind == "parameter"]
    names = [p.name for p in frozen if _is_fresh_table(model, p)]
    if names:
        shown = ", ".join(f"'{name}'" for name in names[:3]) + (" and others" if len(names) > 3 else "")
        yield (
            f"{len(names)} table(s) of vectors ({shown}) look untrained, and no gate is on them: the first task trains "
            "them, and they are frozen after it. Start from a pretrained model, or give each task its own: "
            "rest: per_task."
        )


def _is_fresh_table(model: nn.Module, policy: TensorPolicy) -> bool:
    owner = model.get_submodule(policy.owner)
    weight = owner._parameters.get(policy.name.rpartition(".")[2])
    if weight is None or weight.is_meta or weight.dim() < 2:
        return False
    if math.prod(weight.shape[:-1]) < FEWEST_ROWS or weight.shape[-1] < FEWEST_COLUMNS:
        return False
    # A module that holds modules and a parameter of its own adds it or looks it up: positions of vision models.
    is_table = isinstance(owner, nn.Embedding) or next(owner.children(), None) is not None
    return is_table and _looks_drawn(weight.detach())


def _looks_drawn(weight: Tensor) -> bool:
    """Return whether the rows' norms are as alike as those of independent draws; training spreads them.

    The norm of `d` independent normal numbers has a coefficient of variation of about `1 / sqrt(2 d)`. Rows of zeros,
    as of a padding index or a table that starts at zero, do not count.
    """
    norms = torch.linalg.vector_norm(weight.double().flatten(0, -2), dim=-1)
    norms = norms[norms > 0]
    if len(norms) < FEWEST_ROWS:
        return len(norms) <= 1
    return float(norms.std() / norms.mean()) <= SPREAD / math.sqrt(2 * weight.shape[-1])
