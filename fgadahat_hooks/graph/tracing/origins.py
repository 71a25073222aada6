"""Where tensors come from: the layers whose outputs, read by no other layer, reach a tensor.

Labels say which units an element needs to be non-zero. Origins say less of each element and more of the way: a layer
stays an origin through softmax, scaling, splits, sums and sorting, until another layer reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakIdKeyDictionary

from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key

PRODUCTS = frozenset("mm bmm addmm baddbmm mv addmv dot convolution _cdist_forward _euclidean_dist".split())
"""Operations that read their inputs as features, if one of them is a weight."""
_MIXES = PRODUCTS | frozenset(
    "native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_no_update "
    "_native_batch_norm_legit _native_batch_norm_legit_no_training _fused_rms_norm scaled_dot_product_attention "
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_attention_math".split()
)
"""Operations after which a feature is no longer one unit, or one unit's meaning."""
_COORDINATES = {f"torchvision.{name}.default": 1 for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")}
"""Operations that read one of their inputs as places, through which no gradient goes, with its index."""
_RANDOM = ("rand", "normal", "uniform", "bernoulli", "exponential", "multinomial")
_TRAIL = 3


@dataclass(frozen=True)
class Origin:
    """Where one tensor comes from.

    Attributes:
        layers: Names of the layers and parameters whose outputs reach it.
        clean: Whether a unit of theirs still means the same: nothing has mixed it with others since.
        cut: Whether no gradient goes back through it: it is detached, or holds indices.
        data: Whether it depends on the model's input; if not, it is made of weights and constants only.
        trail: The last operations, oldest first.
    """

    layers: frozenset[str] = frozenset()
    clean: bool = True
    cut: bool = False
    data: bool = True
    trail: tuple[str, ...] = ()


INPUT = Origin()
CONSTANT = Origin(data=False)


class Origins:
    """Origins of all tensors of one forward, by storage, and which layers have been read by another.

    Attributes:
        read: Names of the layers whose outputs another layer reads.
        ends: Origins of tensors that were read, but through which no gradient goes back: proposals of a detector.
    """

    def __init__(self, weight_name: Callable[[Tensor, bool], str | None], constants: Iterable[Tensor]) -> None:
        """Start with parameters and constants known, and everything else an input.

        Args:
            weight_name: Returns the name under which a weight counts, or None for a tensor that is no weight; its
                second argument is whether the weight is looked up by index.
            constants: Buffers of the model.
        """
        self._weight_name = weight_name
        self._constants = {storage_key(t) for t in constants if is_plain(t)}
        self._found: dict[int, tuple[StorageWeakRef, Origin]] = {}
        self._detached: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.read: set[str] = set()
        self.ends: list[Origin] = []

    def of(self, t: Tensor, lookup: bool = False) -> Origin:
        """Return the origin of a tensor."""
        if not is_plain(t):
            return INPUT
        key = storage_key(t)
        if key in self._found:
            origin = self._found[key][1]
            return replace(origin, cut=True) if t in self._detached or not t.dtype.is_floating_point else origin
        name = self._weight_name(t, lookup)
        if name is not None:
            return Origin(frozenset((name,)), data=False)
        return CONSTANT if key in self._constants else INPUT

    def put_layer(self, output: object, name: str) -> None:
        """Record the output of a layer that ran as a module."""
        if isinstance(output, Tensor) and is_plain(output):
            self._put(output, Origin(frozenset((name,)), trail=(f"'{name}'",)))

    def read_by_layer(self, tensors: Iterable[Tensor]) -> None:
        """Record that a layer reads tensors as its features."""
        for origin in map(self.of, tensors):
            self._read(origin)

    def follow(self, op: Operation) -> None:
        """Record the origins of an operation's outputs."""
        outputs = [t for t in (*op.written, *_tensors(op.out)) if is_plain(t)]
        if op.is_view:
            self._follow_view(op, outputs)
            return
        origin = self._result(op)
        for t in outputs:
            before = self._found.get(storage_key(t))
            self._put(t, origin if before is None or not op.mutable else _joined([before[1], origin], origin.trail))

    def follow_foreign(self, name: str, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
        """Record the origins of the outputs of an operation of which nothing else is known."""
        found = [self.of(t) for t in inputs]
        place = _COORDINATES.get(name)
        if place is not None and place < len(found):
            found[place] = replace(found[place], cut=True)
        origin = self._combine(name, found, reads_weights=True)
        for t in outputs:
            self._put(t, origin)

    # -------------------------------------------------------------- one operation
    def _follow_view(self, op: Operation, outputs: Iterable[Tensor]) -> None:
        """Keep in mind that a view is detached: it shares its storage with one that is not."""
        if op.name == "detach" or any(t in self._detached for t in op.inputs):
            for t in outputs:
                self._detached[t] = True

    def _result(self, op: Operation) -> Origin:
        lookup = op.name in ("embedding", "_embedding_bag")
        found = [self.of(t, lookup) for t in op.inputs]
        if not found:
            return INPUT if any(word in op.name for word in _RANDOM) else CONSTANT
        if lookup:  # a table is a layer that reads indices
            return self._combine(op.name, [*found, INPUT], reads_weights=True)
        return self._combine(op.name, found, reads_weights=op.name in PRODUCTS)

    def _combine(self, name: str, found: list[Origin], reads_weights: bool) -> Origin:
        data = [origin for origin in found if origin.data]
        weights = [origin for origin in found if not origin.data and origin.layers]
        if not data:
            return replace(_joined(weights, ()), data=False)
        if weights and reads_weights:
            return self._layer_output(data, weights)
        kept = self._drop_cut(data)
        joined = _joined(kept, (*max((origin.trail for origin in kept), key=len), name))
        return replace(joined, clean=joined.clean and name not in _MIXES)

    def _layer_output(self, data: list[Origin], weights: list[Origin]) -> Origin:
        """Return the origin of what weights make of data, which they have read."""
        for origin in data:
            self._read(origin)
        names = _layers_of(weights)
        return Origin(names, trail=(" and ".join(f"'{name}'" for name in sorted(names)[:2]),))

    def _drop_cut(self, data: list[Origin]) -> list[Origin]:
        """Let the ways end that are cut, if others go on: indices by which a feature map is read."""
        kept = [origin for origin in data if origin.layers and not origin.cut]
        if not kept:
            return data
        self.ends += [origin for origin in data if origin.layers and origin.cut]
        return kept

    def _read(self, origin: Origin) -> None:
        if origin.cut:
            self.ends.append(origin)
        else:
            self.read |= origin.layers

    def _put(self, t: Tensor, origin: Origin) -> None:
        if is_plain(t):
            self._found[storage_key(t)] = (StorageWeakRef(t.untyped_storage()), origin)


def _joined(origins: list[Origin], trail: tuple[str, ...]) -> Origin:
    """Return the origin of a tensor that several reach."""
    return Origin(
        _layers_of(origins),
        all(origin.clean for origin in origins),
        any(origin.cut for origin in origins),
        any(origin.data for origin in origins),
        trail[-_TRAIL:],
    )


def _layers_of(origins: Iterable[Origin]) -> frozenset[str]:
    return frozenset[str]().union(*(origin.layers for origin in origins))


def _tensors(tree: object) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [t for part in tree for t in _tensors(part)] if isinstance(tree, list | tuple) else []
