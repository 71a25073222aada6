"""Record one forward as a list of operations without side effects, so that parts of it can be run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fgadahat_hooks.importance.attribution.scene import Scene


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor among the arguments of a recorded operation."""

    index: int


@dataclass(frozen=True, eq=False)
class Node:
    """One recorded operation.

    Attributes:
        func: The operation, of the dispatcher's, e.g. `aten.convolution.default`.
        args: Its arguments, tensors replaced by `Ref`.
        kwargs: Its keyword arguments, likewise.
        inputs: Numbers of the tensors it reads.
        outputs: What it returns: the number of a tensor, or None for anything else.
        graded: Whether gradients were on.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    graded: bool


class Size(NamedTuple):
    """What a tensor occupies: `size` bytes in the storage numbered `storage`."""

    storage: int
    size: int


@dataclass(eq=False)
class Tape:
    """A recorded forward.

    Attributes:
        nodes: All operations in order.
        values: The tensors by number, as they were, without gradient.
        sizes: What they occupy.
        sites: For each layer, for each of its calls, which node passes its value on.
        written: For a storage that an operation wrote into, the last node that did.
        scores: Number of the tensor of scores.
    """

    nodes: list[Node] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)
    sizes: list[Size] = field(default_factory=list)
    sites: dict[str, list[int]] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    scores: int = -1


def record(scene: Scene) -> Tape:
    """Run the model once on the batch and return what it did.

    Writing in place is turned into writing elsewhere (`torch.func.functionalize`), fused kernels of attention into the
    operations they stand for: these can run on several copies at once, and have gradients.

    Raises:
        LeavesTorchError: The model takes numbers out of torch: while it is recorded there are none behind its tensors.
        Exception: Whatever torch raises for a model that cannot be recorded, or the model itself.
    """
    leaves, spec = pytree.tree_flatten(scene.inputs())
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    recorder = _Recorder()

    def scores(*tensors: Tensor) -> Tensor:
        for place, tensor in zip(places, tensors, strict=True):
            leaves[place] = tensor
        return scene.run_on(pytree.tree_unflatten(leaves, spec), edit=recorder.mark).scores

    functional: Callable[..., Tensor] = torch.func.functionalize(scores, remove="mutations")
    with sdpa_kernel(SDPBackend.MATH), _NoWayOut(), recorder:
        found = functional(*[leaves[place] for place in places])
    return recorder.finish(found)


class LeavesTorchError(Exception):
    """A forward hands numbers to something else than torch."""


class _NoWayOut(TorchFunctionMode):
    """Refuses what would read memory that a recorded tensor does not have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__", "tolist", "__dlpack__", "data_ptr"):
            raise LeavesTorchError(f"the model calls `{name}`")
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Sees every operation below gradients and below functionalization."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape = Tape()
        self._numbers: dict[int, int] = {}
        self._storages: dict[int, int] = {}
        self._site: str | None = None

    def mark(self, layer: str, _: int, value: Tensor) -> Tensor:
        """Let the next copy stand for what flows on from a layer."""
        self._site = layer
        return value.clone()

    def finish(self, scores: Tensor) -> Tape:
        """Return the tape; its tensors no longer hold on to a graph of gradients."""
        tape, self._tape = self._tape, Tape()
        tape.scores = self._numbers.get(id(scores), -1)
        tape.values = {number: value.detach() for number, value in tape.values.items()}
        return tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tape, number = self._tape, len(self._tape.nodes)
        if func._schema.is_mutable:
            self._note_written(func, args, kwargs, number)
        stored_args, stored_kwargs = stored = pytree.tree_map_only(Tensor, self._ref, (args, kwargs))
        inputs = tuple(leaf.index for leaf in pytree.tree_leaves(stored) if isinstance(leaf, Ref))
        result = func(*args, **kwargs)
        flat = pytree.tree_leaves(result)
        outputs = tuple(self._ref(leaf).index if isinstance(leaf, Tensor) else None for leaf in flat)
        tape.nodes.append(Node(func, stored_args, stored_kwargs, inputs, outputs, torch.is_grad_enabled()))
        if self._site is not None and func is torch.ops.aten.clone.default:
            tape.sites.setdefault(self._site, []).append(number)
            self._site = None
        return result

    def _ref(self, tensor: Tensor) -> Ref:
        """Return the number of a tensor; it is kept, so that no other takes its identity."""
        number = self._numbers.setdefault(id(tensor), len(self._numbers))
        if number not in self._tape.values:
            self._tape.values[number] = tensor
            storage = tensor.untyped_storage()
            place = self._storages.setdefault(storage._cdata, len(self._storages))
            self._tape.sizes.append(Size(place, storage.nbytes()))
        return Ref(number)

    def _note_written(self, func: Any, args: Any, kwargs: Any, number: int) -> None:
        """Remember into what an operation writes: a value read before that is no longer what it was."""
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._note(value, number)
        for argument in func._schema.arguments:
            if argument.name in kwargs and argument.alias_info is not None and argument.alias_info.is_write:
                self._note(kwargs[argument.name], number)

    def _note(self, value: Any, number: int) -> None:
        for tensor in pytree.tree_leaves(value):
            if isinstance(tensor, Tensor):
                self._tape.written[self._tape.sizes[self._ref(tensor).index].storage] = number
