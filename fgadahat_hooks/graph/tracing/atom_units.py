"""From labels to units: which units each atom stands for, once it is known where gates act."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable
from fgadahat_hooks.graph.unit_graph import InputMap

Sets = list[frozenset[int]]
"""Sets of units, in each of which one must be on."""

_FIRST = 2
"""The label of the first atom, after `ZERO` and `LIVE`."""


class AtomUnits:
    """Which units an atom stands for: nearly always one, so most of the work is done on whole tensors."""

    def __init__(self, table: LabelTable) -> None:
        """Start with every atom live."""
        self._table = table
        self._unit = torch.full((table.singles,), -1, dtype=torch.long, device="cpu")
        self._units = self._unit.numpy()  # the same memory, faster to index by single atoms
        self._sets: dict[int, Sets] = {}
        self._resolved: dict[int, Sets | None] = {}

    def add_layer(self, first: int, offset: int, units: int) -> None:
        """Assign `units` units, numbered from `offset` on, to the atoms from `first` on."""
        self._unit[first : first + units] = torch.arange(offset, offset + units, device="cpu")

    def add_channels(self, atoms: range, labels: Tensor, known: AtomUnits) -> None:
        """Assign to atoms the units that another table has for labels, `(len(atoms),)`; live ones stay live."""
        self._unit[atoms.start : atoms.stop] = known._single_units(labels)
        for place in known._other_places(labels).tolist():
            sets = known.sets(int(labels[place]))
            if sets:
                self._sets[atoms[place]] = sets

    def input_map(self, labels: Tensor, zero_is_live: bool = False) -> InputMap:
        """Return the units of features with these labels, `(features,)`."""
        single = self._single_units(labels)
        feature = (single >= 0).nonzero().flatten()
        live = (labels == LIVE) | ((labels == ZERO) & zero_is_live)
        sets = [(place, self.sets(int(labels[place]))) for place in self._other_places(labels).tolist()]
        live[[place for place, found in sets if found is None]] = True
        rows = [(place, group, len(units)) for place, found in sets for group, units in enumerate(found or ())]
        place, group, count = torch.tensor(rows, dtype=torch.long, device="cpu").view(-1, 3).unbind(1)
        units = list(chain.from_iterable(sorted(one) for _, found in sets for one in found or ()))
        features = torch.cat([feature, place.repeat_interleave(count)])
        order = features.argsort(stable=True)
        unit = torch.cat([single[feature], torch.tensor(units, dtype=torch.long, device="cpu")])[order]
        groups = torch.cat([torch.zeros_like(feature), group.repeat_interleave(count)])[order]
        return InputMap(labels.numel(), live, features[order], unit, groups if bool(group.any()) else None)

    def sets(self, label: int) -> Sets | None:
        """Return the sets of units of a label; empty for `ZERO`, None if it is live.

        The result is cached: call it only when all the label's atoms have been added that will be.
        """
        if label not in self._resolved:
            self._resolved[label] = [] if label == ZERO else self._resolve(label)
        return self._resolved[label]

    def _resolve(self, label: int) -> Sets | None:
        """Resolve set by set; a set with a live atom promises nothing and is left out.

        If an atom with several sets is in a set with other atoms, its smallest set is taken: safe, since a unit of each
        of its sets must be on.
        """
        found: set[frozenset[int]] = set()
        for atoms in self._table.sets(label):
            units = self._units[list(atoms)].tolist()
            if min(units) >= 0:
                found.add(frozenset(units))
                continue
            pairs = zip(atoms, units, strict=True)
            parts = [self._sets.get(atom, []) if unit < 0 else [frozenset((unit,))] for atom, unit in pairs]
            if len(parts) == 1:
                found.update(parts[0])
            elif all(parts):
                found.add(frozenset().union(*(min(part, key=len) for part in parts)))
        return sorted(found, key=sorted) if len(found) > 1 else list(found) or None

    def _single_units(self, labels: Tensor) -> Tensor:
        """Return the unit of each label that is of one atom with one unit, else -1."""
        atoms = labels.long() - _FIRST
        count = self._unit.numel()
        if not count:
            return torch.full_like(atoms, -1)
        single = (atoms >= 0) & (atoms < count)
        return torch.where(single, self._unit[atoms.clamp(0, count - 1)], -1)

    def _other_places(self, labels: Tensor) -> Tensor:
        """Return the places of labels that are neither `ZERO` nor `LIVE` nor of one unit."""
        return ((labels > LIVE) & (self._single_units(labels) < 0)).nonzero().flatten()
