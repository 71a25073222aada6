"""The channels along the axes of every parameter and buffer of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fgadahat_hooks.export.channel_groups import ChannelGroups
from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key
from fgadahat_hooks.layers import LayerType, layer_type_of


@dataclass
class PrunableTensor:
    """A parameter or buffer with channels along its axes.

    Attributes:
        shape: Its shape.
        stride: Its strides.
        channels: Channels along each axis that may be cut.
        owners: Name of the module and local name, for every module that holds it.
        layer: Name of the layer whose weight it is.
        layer_type: Type of that layer.
        conv_groups: `groups` of that layer, if it is a convolution.
        implicit_outputs: Channels of the units where no axis of the weight counts them all, as in a grouped transposed
            convolution.
        used: Whether the forward used it as the weight of its layer.
    """

    shape: torch.Size
    stride: tuple[int, ...]
    channels: dict[int, Tensor]
    owners: list[tuple[str, str]] = field(default_factory=list)
    layer: str | None = None
    layer_type: LayerType | None = None
    conv_groups: int = 1
    implicit_outputs: Tensor | None = None
    used: bool = False

    @property
    def outputs(self) -> Tensor | None:
        """Channels of the units of a layer; None if this is no layer's weight."""
        if self.layer_type is None or self.implicit_outputs is not None:
            return self.implicit_outputs
        return self.channels.get(self.layer_type.weight_axis)

    @property
    def inputs(self) -> Tensor | None:
        """Channels of the input features; None if there are none, or if they go with the units, group by group."""
        if self.layer_type is None or self.conv_groups > 1:
            return None
        return self.channels.get(1 - self.layer_type.weight_axis)


class ChannelTable:
    """All prunable tensors of a model and their channel groups, looked up by the memory that an operation reads."""

    def __init__(self, model: nn.Module) -> None:
        """Give channels to the units and input features of layers' weights, and to vectors."""
        self.groups = ChannelGroups()
        self.entries: dict[int, PrunableTensor] = {}
        self.tensors: dict[int, Tensor] = {}
        self._shared: set[int] = set()
        for path, module in model.named_modules():
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and is_plain(tensor) and tensor.numel() > 1:
                    self._add(path, module, name, tensor)

    def _add(self, path: str, module: nn.Module, name: str, tensor: Tensor) -> None:
        entry = self._entry(tensor)
        entry.owners.append((path, name))
        layer_type = layer_type_of(module) if name == "weight" else None
        if layer_type is None:
            self._add_vector_channels(entry, tensor)
        elif entry.layer is None or not entry.channels or entry.inputs is None:
            entry.layer, entry.layer_type = path, layer_type
            self._add_weight_channels(entry, layer_type, module, tensor)

    def _entry(self, tensor: Tensor) -> PrunableTensor:
        """Return the entry of a tensor's memory, a new one if it has none; note memory seen in two shapes."""
        key = storage_key(tensor)
        if key not in self.entries:
            self.entries[key] = PrunableTensor(tensor.shape, tensor.stride(), {})
            self.tensors[key] = tensor
        entry = self.entries[key]
        if (entry.shape, entry.stride) != (tensor.shape, tensor.stride()) or tensor.storage_offset():
            self._shared.add(key)
        return entry

    def _add_vector_channels(self, entry: PrunableTensor, tensor: Tensor) -> None:
        """Give channels to a tensor that has one axis longer than 1, and no channels yet."""
        long_axes = [axis for axis, size in enumerate(tensor.shape) if size > 1]
        if not entry.channels and len(long_axes) == 1:
            entry.channels = {long_axes[0]: self.groups.new_channels(tensor.shape[long_axes[0]])}

    def _add_weight_channels(
        self, entry: PrunableTensor, layer_type: LayerType, module: nn.Module, weight: Tensor
    ) -> None:
        entry.conv_groups = int(getattr(module, "groups", 1))
        axes = _prunable_axes(layer_type, module, entry.conv_groups)
        entry.channels = {axis: self.groups.new_channels(weight.shape[axis]) for axis in axes}
        implicit = layer_type.weight_axis not in axes
        entry.implicit_outputs = self.groups.new_channels(layer_type.units(module)) if implicit else None

    def keep_shared_memory(self) -> None:
        """Keep tensors whose memory is also held in another shape."""
        for key in self._shared:
            self.keep_entry(self.entries[key], "memory is shared")

    def weight(self, t: Tensor) -> PrunableTensor | None:
        """Return the entry of which `t` is a view, if it is a layer's weight."""
        entry = self.entries.get(storage_key(t)) if is_plain(t) else None
        return entry if entry is not None and entry.layer is not None else None

    def keep_entry(self, entry: PrunableTensor, reason: str) -> None:
        """Keep a whole tensor as it is."""
        for channels in entry.channels.values():
            self.groups.keep(channels, reason)

    def vectors(self) -> Iterator[tuple[Tensor, int, Tensor]]:
        """Yield each tensor that has channels but is no layer's weight, with its axis and channels."""
        for key, entry in self.entries.items():
            if entry.layer is None:
                yield from ((self.tensors[key], axis, channels) for axis, channels in entry.channels.items())

    def layers(self) -> Iterable[PrunableTensor]:
        """Return the entries of layers' weights."""
        return [entry for entry in self.entries.values() if entry.layer is not None]


def _prunable_axes(layer_type: LayerType, module: nn.Module, conv_groups: int) -> tuple[int, ...]:
    """Return the axes along which a layer's weight can be cut.

    Groups of a convolution lie one after another along axis 0 and go as a whole. A table of words keeps its words.
    """
    if conv_groups > 1:
        return (0,)
    return (0, 1) if layer_type.inputs(module) else (layer_type.weight_axis,)
