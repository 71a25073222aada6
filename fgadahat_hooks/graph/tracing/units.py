"""From labels to units: what is known of atoms in the end, once it is clear where gates act."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable
from fgadahat_hooks.graph.unit_graph import InputMap

Sets = list[frozenset[int]]
"""Sets of units, in each of which one must be on."""

_FIRST = 2
"""The label of the first atom; before it stand `ZERO` and `LIVE`."""


class KnownAtoms:
    """Which units an atom stands for; nearly always one, so that most of the work is done on whole tensors."""

    def __init__(self, table: LabelTable) -> None:
        """Start with every atom live."""
        self._table = table
        self._unit = torch.full((table.singles,), -1, dtype=torch.long, device="cpu")
        self._units = self._unit.numpy()  # the same memory, for single places
        self._sets: dict[int, Sets] = {}
        self._memo: dict[int, Sets | None] = {}

    def add_layer(self, first: int, offset: int, units: int) -> None:
        """Let the atoms from `first` on stand for the units from `offset` on."""
        self._unit[first : first + units] = torch.arange(offset, offset + units, device="cpu")

    def add_channels(self, atoms: range, labels: Tensor, known: KnownAtoms) -> None:
        """Let atoms stand for what another table knows of labels, `(len(atoms),)`; live ones stay live."""
        self._unit[atoms.start : atoms.stop] = known._single_units(labels)
        for place in known._others(labels).tolist():
            sets = known.sets(int(labels[place]))
            if sets:
                self._sets[atoms[place]] = sets

    def map(self, labels: Tensor, zero_is_live: bool = False) -> InputMap:
        """Return the units of features with these labels, `(features,)`."""
        single = self._single_units(labels)
        feature = (single >= 0).nonzero().flatten()
        live = (labels == LIVE) | ((labels == ZERO) & zero_is_live)
        sets = [(place, self.sets(int(labels[place]))) for place in self._others(labels).tolist()]
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
        """Return the sets of units of a label; none for `ZERO`, None for what is live.

        Ask only when all its atoms have been added that will be: the answer is kept.
        """
        if label not in self._memo:
            self._memo[label] = [] if label == ZERO else self._resolve(label)
        return self._memo[label]

    def _resolve(self, label: int) -> Sets | None:
        """Resolve set by set; a set with a live atom says nothing and is left out.

        Of an atom with several sets, among others, the smallest set is taken: safe, since all of them must be on.
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

    def _others(self, labels: Tensor) -> Tensor:
        """Return the places of labels that are neither `ZERO` nor `LIVE` nor of one unit."""
        return ((labels > LIVE) & (self._single_units(labels) < 0)).nonzero().flatten()
