"""Run the operations after a layer again, many altered copies of its value at once, without those before it."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.importance.attribution.replay_forms import FORMS
from fgadahat_hooks.importance.attribution.replay_slice import NotReplayable, Slice
from fgadahat_hooks.importance.attribution.replay_tape import Node, Ref, Tape, record
from fgadahat_hooks.importance.attribution.scene import Scene

T = TypeVar("T")
Alter = Callable[[int, Tensor, Any], Tensor]
"""Takes the number of a layer's call, what it put out and one row; returns what flows on."""

_log = logging.getLogger(__name__)


class Rerun(ABC):
    """Gives the scores that follow from altered values of one layer."""

    @abstractmethod
    def scores(self, alter: Alter, rows: Any) -> Tensor:
        """Return the scores under each row, `(rows, batch)`, differentiable by the rows.

        Args:
            alter: Makes the value of a call from the row.
            rows: A tensor, or a list of tensors, whose first axes count the rows.
        """

    @abstractmethod
    def at_once(self, memory: float, *, grad: bool) -> int:
        """Return how many rows fit into so many bytes, one at least."""


class Whole(Rerun):
    """Runs the whole model for each row: right for every model, and slow."""

    def __init__(self, scene: Scene, layer: str) -> None:
        """Alter this layer."""
        self._scene = scene
        self._layer = layer

    def scores(self, alter: Alter, rows: Any) -> Tensor:
        """Return the scores under each row, `(rows, batch)`."""
        count = len(pytree.tree_leaves(rows)[0])
        return torch.stack([self._one(alter, pytree.tree_map(lambda t, k=k: t[k], rows)) for k in range(count)])

    def _one(self, alter: Alter, row: Any) -> Tensor:
        def edit(layer: str, call: int, value: Tensor) -> Tensor:
            return alter(call, value, row).clone() if layer == self._layer else value  # the model may write into it

        return self._scene.run_on(self._scene.inputs(), grad=torch.is_grad_enabled(), edit=edit).scores

    def at_once(self, memory: float, *, grad: bool) -> int:
        """Return 1."""
        return 1


class Replay(Rerun):
    """Runs again what lies between the layer and the scores; all else is kept from the recorded forward."""

    def __init__(self, tape: Tape, part: Slice) -> None:
        """Take the operations."""
        self._tape = tape
        self._part = part

    def scores(self, alter: Alter, rows: Any) -> Tensor:
        """Return the scores under each row, `(rows, batch)`."""
        if not self._part.nodes:
            return self._tape.values[self._tape.scores].expand(len(pytree.tree_leaves(rows)[0]), -1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # an operation without a batched form
            found: Tensor = torch.vmap(lambda row: self._run(alter, row))(rows)
        return found

    def _run(self, alter: Alter, row: Any) -> Tensor:
        made: dict[int, Tensor] = {}
        for number in self._part.nodes:
            node = self._tape.nodes[number]
            args, kwargs = self._filled(node, made)
            if number in self._part.sites:
                result = alter(self._part.sites[number], args[0], row)
            elif node.func in FORMS:
                result = FORMS[node.func](node.func, *args, **kwargs)
            else:
                result = node.func(*args, **kwargs)
            made.update((o, v) for o, v in zip(node.outputs, pytree.tree_leaves(result), strict=False) if o is not None)
            del args, kwargs, result
            for value in self._part.gone.get(number, ()):
                made.pop(value, None)
        return made[self._tape.scores]

    def _filled(self, node: Node, made: dict[int, Tensor]) -> tuple[Any, Any]:
        look = lambda ref: made[ref.index] if ref.index in made else self._tape.values[ref.index]  # noqa: E731
        filled: tuple[Any, Any] = pytree.tree_map_only(Ref, look, (node.args, node.kwargs))
        return filled

    def at_once(self, memory: float, *, grad: bool) -> int:
        """Return how many rows fit into so many bytes, one at least."""
        each = self._part.bytes_at_once + (self._part.bytes_together if grad else 0)
        return max(1, int(memory // max(1, each)))


class Reruns:
    """Reruns of every layer of a scene, from one recorded forward where that is possible.

    What is no fixed list of operations runs as whole forwards: control flow that looks at numbers, random numbers, and
    whatever torch cannot record.

    Attributes:
        recorded: Whether there is a recorded forward.
    """

    def __init__(self, scene: Scene, *, grad: bool, whole: Collection[str] = ()) -> None:
        """Record the model on the batch.

        Args:
            scene: The model and the batch.
            grad: Whether gradients will be asked.
            whole: Layers that are to run as whole forwards.
        """
        self._scene = scene
        self._replays: dict[str, Replay] = {}
        self.recorded = False
        if set(scene.sites) <= set(whole):
            return
        try:
            self._cut(record(scene), grad, whole)
            self.recorded = True
        except Exception as error:  # anything: an error of the model's own is raised again by a whole forward
            _log.info("The forward could not be recorded, so that whole forwards are run: %s", error)

    def _cut(self, tape: Tape, grad: bool, whole: Collection[str]) -> None:
        """Keep what some layer's rerun needs, and let go of the rest."""
        needed: set[int] = set()
        for layer in self._scene.sites:
            if layer in whole:
                continue
            try:
                part = Slice(tape, layer, grad=grad)
            except NotReplayable as error:
                _log.info("Whole forwards are run for layer '%s': %s.", layer, error)
                continue
            self._replays[layer] = Replay(tape, part)
            needed |= part.needed
        tape.values = {number: value for number, value in tape.values.items() if number in needed}

    def on(self, layer: str, work: Callable[[Rerun], T]) -> T:
        """Return what `work` makes of a layer's rerun; if the short way fails, it starts anew with whole ones."""
        if layer in self._replays:
            try:
                return work(self._replays[layer])
            except Exception as error:  # anything: an operation that cannot run on several copies, memory
                _log.info("Whole forwards are run for layer '%s': %s", layer, error)
        return work(Whole(self._scene, layer))
