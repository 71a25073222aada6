"""Which operations of a recorded forward lie between a layer and the scores, and what running them again takes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch

from fgadahat_hooks.importance.attribution.replay_tape import Node, Size, Tape


class NotReplayable(Exception):  # noqa: N818 - says what a forward is, and never reaches a user
    """The forward depends on the layer's value in a way that a list of operations does not tell."""


class Slice:
    """The operations between one layer and the scores.

    Attributes:
        sites: For an operation that passes the layer's value on, the number of the layer's call.
        nodes: Numbers of the operations, in order.
        needed: Numbers of the tensors they read and do not make.
        gone: For an operation, the values that nothing after it reads.
    """

    def __init__(self, tape: Tape, layer: str, *, grad: bool) -> None:
        """Find them.

        Args:
            tape: The recorded forward.
            layer: Name of the layer.
            grad: Whether gradients will be asked.

        Raises:
            NotReplayable: One of them cannot be run again alone.
        """
        self._tape = tape
        self.sites = {number: call for call, number in enumerate(tape.sites.get(layer, ()))}
        self.nodes = self._find(grad)
        made = {output for node in self._each() for output in node.outputs}
        self.needed = {read for node in self._each() for read in node.inputs if read not in made} | {tape.scores}
        self.gone = self._last_uses()

    def _each(self) -> Iterable[Node]:
        return (self._tape.nodes[number] for number in self.nodes)

    # ---------------------------------------------------------------- finding
    def _find(self, grad: bool) -> list[int]:
        """Return what depends on the layer and leads to the scores."""
        after: list[int] = []
        altered: set[int | None] = set()
        for number, node in enumerate(self._tape.nodes):
            dependent = not altered.isdisjoint(node.inputs)
            if dependent:
                _refuse_unless_pure(node)
            if dependent or number in self.sites:
                after.append(number)
                altered.update(node.outputs)
        found, wanted = [], {self._tape.scores}
        for number in reversed(after):
            node = self._tape.nodes[number]
            if not wanted.isdisjoint(node.outputs):
                self._refuse_unless_same_again(number, grad)
                found.append(number)
                wanted.update(node.inputs)
        return found[::-1]

    def _refuse_unless_same_again(self, number: int, grad: bool) -> None:
        node, tape = self._tape.nodes[number], self._tape
        if torch.Tag.nondeterministic_seeded in node.func.tags:
            raise NotReplayable(f"{node.func} draws random numbers")
        if grad and not node.graded:
            raise NotReplayable(f"{node.func} ran without gradients")
        if any(tape.written.get(tape.sizes[read].storage, -1) > number for read in node.inputs):
            raise NotReplayable(f"what {node.func} reads was overwritten later")

    # ---------------------------------------------------------------- memory
    def _last_uses(self) -> dict[int, list[int]]:
        last = {value: number for number in self.nodes for value in _values(self._tape.nodes[number])}
        last.pop(self._tape.scores, None)
        gone: dict[int, list[int]] = {}
        for value, number in last.items():
            gone.setdefault(number, []).append(value)
        return gone

    @cached_property
    def bytes_at_once(self) -> int:
        """Bytes of all made values that are alive at the same time, at most."""
        sizes = self._tape.sizes
        born: dict[Size, int] = {}
        last: dict[Size, int] = {}
        for number in self.nodes:
            for value in self._tape.nodes[number].outputs:
                if value is not None:
                    born.setdefault(sizes[value], number)
            for value in _values(self._tape.nodes[number]):
                last[sizes[value]] = number
        changes = [(number, 0, size.size) for size, number in born.items()]
        changes += [(last[size], 1, -size.size) for size in born]
        alive = most = 0
        for _, _, change in sorted(changes):
            alive += change
            most = max(most, alive)
        return most

    @cached_property
    def bytes_together(self) -> int:
        """Bytes of all made values, as a backward needs them."""
        sizes = self._tape.sizes
        return sum(s.size for s in {sizes[v] for node in self._each() for v in node.outputs if v is not None})


def _refuse_unless_pure(node: Node) -> None:
    if node.func._schema.is_mutable:
        raise NotReplayable(f"{node.func} writes in place")
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    if not tags.isdisjoint(node.func.tags) or any(output is None for output in node.outputs) or not node.outputs:
        raise NotReplayable(f"{node.func} lets the flow depend on numbers")


def _values(node: Node) -> Iterable[int]:
    return (*node.inputs, *(output for output in node.outputs if output is not None))
