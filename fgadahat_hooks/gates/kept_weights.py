"""All values of one model that finished tasks read and that no later task has for itself."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fgadahat_hooks.gates.kept_digest import KeptDigest
from fgadahat_hooks.gates.kept_entries import KeptEntries
from fgadahat_hooks.gates.task_tensors import TaskTensors

Kept = KeptEntries | KeptDigest


@dataclass(eq=False)
class KeptWeights:
    """The exact values of protected entries and of frozen tensors, and the versions of the tensors when last compared.

    A tensor counts how often it was written into (`_version`), which tells without a look at its values that nobody has
    written since; writes through `.data` are not counted.

    Attributes:
        tensors: Access to the model's tensors.
        gated: Kept entries of gated weights and biases, by qualified name.
        frozen: Frozen parameters and buffers, by qualified name.
        hard: Whether gated entries must not move while a task runs either.
        loaded: Whether a state dict was loaded since the values were last compared.
        warned: Names of which a warning has told that they were put back.
    """

    tensors: TaskTensors
    gated: Mapping[str, KeptEntries]
    frozen: Mapping[str, Kept]
    hard: bool
    loaded: bool = False
    warned: set[str] = field(default_factory=set)
    _slots: dict[str, tuple[Mapping[str, Tensor | None], str]] = field(default_factory=dict)
    _seen: dict[str, tuple[weakref.ref[Tensor], int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find where each tensor is, so that a step needs no walk through the model; note the versions."""
        self._slots = {name: self.tensors.slot(name) for name in (*self.gated, *self.frozen)}
        self.see()

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(kept.nbytes for kept in (*self.gated.values(), *self.frozen.values()))

    def entries(self, running: bool) -> dict[str, Kept]:
        """Return what must not have changed; soft rates move gated entries while a task runs."""
        return {**(self.gated if self.hard or not running else {}), **self.frozen}

    def see(self) -> None:
        """Take the values that the tensors have now as known."""
        self._seen = {
            name: (weakref.ref(t), _version_of(t)) for name in self._slots if (t := self.live(name)) is not None
        }

    def written(self, names: Iterable[str]) -> list[str]:
        """Return the names of the tensors that were written into, or replaced, since they were last seen."""
        return [name for name in names if not self._is_as_seen(name)]

    def _is_as_seen(self, name: str) -> bool:
        tensor, seen = self.live(name), self._seen.get(name)
        return tensor is not None and seen is not None and seen[0]() is tensor and _version_of(tensor) == seen[1]

    def live(self, name: str) -> Tensor | None:
        """Return the tensor that its module has under a name now."""
        table, local = self._slots[name]
        return table.get(local)

    def reshaped(self) -> list[str]:
        """Return the names of the tensors that were replaced by ones of another shape."""
        entries = {**self.gated, **self.frozen}
        return [name for name, kept in entries.items() if self.tensors.tensor(name).shape != kept.shape]

    def replaced(self) -> bool:
        """Return whether a tensor was replaced by another one since it was last seen, or has another shape or type."""
        entries = {**self.gated, **self.frozen}
        found = {name: self.tensors.tensor(name) for name in entries}
        return any(
            self.live(n) is not t or not entries[n].fits(t) or not self._is_known(n, t) for n, t in found.items()
        )

    def _is_known(self, name: str, tensor: Tensor) -> bool:
        return name in self._seen and self._seen[name][0]() is tensor

    def differing(self, entries: Mapping[str, Kept]) -> dict[str, int]:
        """Return how many kept entries of each tensor have other bits now, where some do; reads the device once."""
        known = {name: kept for name, kept in entries.items() if kept.fits(self.tensors.tensor(name))}
        if not known:
            return {}
        counts = [kept.differing(self.tensors.tensor(name)) for name, kept in known.items()]
        found = torch.stack([count.to(counts[0].device) for count in counts]).tolist()
        return {name: count for name, count in zip(known, found, strict=True) if count}

    def only_rounded(self, name: str, kept: Kept) -> bool:
        """Return whether a tensor differs from what is kept by rounding errors alone."""
        return isinstance(kept, KeptEntries) and kept.only_rounded(self.tensors.tensor(name))

    def put_back(self, entries: Mapping[str, Kept]) -> None:
        """Give kept entries their values."""
        with torch.no_grad():
            for name, kept in entries.items():
                tensor = self.tensors.tensor(name)
                if isinstance(kept, KeptEntries) and kept.fits(tensor):
                    kept.write_into(tensor)


def _version_of(tensor: Tensor) -> int:
    """Return how often something was written into a tensor; 0 for tensors of inference mode, which do not count it."""
    return 0 if tensor.is_inference() else tensor._version
