"""The gate: one task embedding per layer, and the mask computed from it.

Where and how the mask acts is in `sites.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import NoTaskError
from fgadahat_hooks.functional.mask import annealed_gate, apply_linearised_mask, hard_mask, linearised_mask
from fgadahat_hooks.gates.model_lock import ModelLock

_HALF = (torch.float16, torch.bfloat16)


class GateMode(Enum):
    """What all gates of a model currently do."""

    OPEN = "open"
    """Pass everything: no task has been learnt yet."""
    TASK = "task"
    """Apply the soft mask of the running task in training mode, its hard mask in evaluation mode."""
    USE = "use"
    """Apply the stored binary masks of a finished task."""
    CLOSED = "closed"
    """Raise: tasks have been learnt and none is chosen."""


class GateContext:
    """What all gates of one model share.

    Attributes:
        mode: What the gates currently do.
        scale: Annealed gate scale `s`, a 0-dim tensor, so that a change does not trigger recompilation.
        s_max: Largest scale.
        clamp_threshold: Bound of `|s e|` in the gradient compensation.
        learns_masks: Whether the running task's masks are being learnt; else they are fixed and hard.
        masks: Binary masks that mode USE applies, `(units,)` per layer.
        gates: All gates of the model.
        lock: Lets one thread at a time choose the task.
    """

    def __init__(self, s_max: float, clamp_threshold: float, learns_masks: bool = True) -> None:
        """Start with open gates."""
        self.mode = GateMode.OPEN
        self.s_max = s_max
        self.clamp_threshold = clamp_threshold
        self.scale = torch.tensor(float(s_max))
        self.learns_masks = learns_masks
        self.masks: dict[str, Tensor] = {}
        self.gates: list[Gate] = []
        self.lock = ModelLock()
        self._mask_cache: dict[str, _LinearisedMask] = {}

    def set_scale(self, scale: float) -> None:
        """Set the scale in the precision of the embeddings: a model in float64 keeps all its digits."""
        dtype = self.gates[0].embedding.dtype if self.gates else torch.float32
        self.scale = torch.tensor(float(scale), dtype=dtype, device=self.scale.device)

    def linearised_mask(self, gate: Gate) -> tuple[Tensor, Tensor]:
        """Return value and slope of a gate's training mask, `(units,)` each, without gradient.

        They are cached. When the scale or this gate's embedding has changed, those of all gates are computed together:
        a dozen small operations for the whole model instead of a dozen for each layer.
        """
        cached = self._mask_cache.get(gate.name)
        if cached is None or not cached.is_current(gate.embedding, self.scale):
            self._refresh(gate)
            cached = self._mask_cache[gate.name]
        return cached.value, cached.slope

    def set_learning(self, learns_masks: bool) -> None:
        """Let the running task's masks be learnt, or fix them as they are and make them hard."""
        if learns_masks != self.learns_masks:
            self.learns_masks = learns_masks
            self.clear_mask_cache()

    def clear_mask_cache(self) -> None:
        """Discard the cached masks; needed after optimizers that bypass torch's version counter."""
        self._mask_cache.clear()

    @contextmanager
    def constant_masks(self) -> Iterator[None]:
        """Run the block with the running task's current masks as constants; without a running task, change nothing."""
        if self.mode is not GateMode.TASK:
            yield
            return
        masks = {gate.name: mask.detach() for gate in self.gates if (mask := gate.mask()) is not None}
        with self.override(GateMode.USE, masks):
            yield

    def open_gates(self) -> AbstractContextManager[None]:
        """Run the block with open gates, as before the first task: for a trial forward between two tasks."""
        return self.override(GateMode.OPEN, {})

    @contextmanager
    def override(self, mode: GateMode, masks: dict[str, Tensor]) -> Iterator[None]:
        """Wait until no other thread uses the model, then run the block in `mode` with `masks`, `(units,)` per layer.

        Mode and masks are restored afterwards, also on an error.
        """
        with self.lock.hold():
            before = (self.mode, self.masks)
            try:
                self.mode, self.masks = mode, masks
                yield
            finally:
                self.mode, self.masks = before

    def _refresh(self, gate: Gate) -> None:
        """Compute the masks of all gates whose embeddings have the device and dtype of this gate's."""
        like = gate.embedding
        together = [g for g in self.gates if g.embedding.device == like.device and g.embedding.dtype == like.dtype]
        together = together if gate in together else [gate]
        joined = torch.cat([g.embedding.detach() for g in together])
        if self.scale.device != like.device:
            self.scale = self.scale.to(like.device)
        value, slope = self._mask_of(joined)
        sizes = [g.embedding.numel() for g in together]
        for g, v, d in zip(together, value.split(sizes), slope.split(sizes), strict=True):
            self._mask_cache[g.name] = _LinearisedMask(g.embedding._version, self.scale, v, d)

    def _mask_of(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        if not self.learns_masks:  # a slope of 0 keeps the embeddings in the graph, as DistributedDataParallel expects
            return hard_mask(embedding).to(embedding.dtype), torch.zeros_like(embedding)
        return linearised_mask(embedding, self.scale, self.s_max, self.clamp_threshold)


class _LinearisedMask(NamedTuple):
    """A training mask, linearised at one scale and one version of the embedding."""

    version: int
    scale: Tensor
    value: Tensor
    slope: Tensor

    def is_current(self, embedding: Tensor, scale: Tensor) -> bool:
        same_place = self.value.device == embedding.device and self.value.dtype == embedding.dtype
        return self.scale is scale and self.version == embedding._version and same_place


class Calibration(Protocol):
    """Sets the gains and biases of a gate from the outputs of its layer."""

    def see(self, gate: Gate, output: Tensor) -> None:
        """Take in an output of the gate's layer, before the gate acts on it."""


class Gate(nn.Module):
    """The task embedding of one layer and the mask computed from it.

    Called on a layer's output, it multiplies each unit by its mask. With gains, each open unit has a gain and a bias of
    the running task as well: `m (g y + b)` for an output `y`.
    """

    gain: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, name: str, like: Tensor, units: int, unit_axis: int, context: GateContext) -> None:
        """Create the embedding `(units,)`.

        Args:
            name: Name of the gated layer.
            like: A tensor, e.g. the layer's weight. The embedding gets its device, and its dtype if that is float32 or
                float64, else float32.
            units: Number of units.
            unit_axis: Axis of units in the output, negative.
            context: What all gates of the model share.
        """
        super().__init__()
        dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
        self.embedding = nn.Parameter(torch.zeros(units, dtype=dtype, device=like.device))
        self.calibration: Calibration | None = None
        self.folds_gains = False  # in evaluation, see `gain_site`
        self.register_parameter("gain", None)
        self.register_parameter("bias", None)
        self.name = name
        self.unit_axis = unit_axis
        self.context = context
        context.gates.append(self)

    def add_gains(self) -> None:
        """Give each unit a gain, 1, and a bias, 0, both `(units,)`."""
        like = self.embedding.detach()
        self.gain, self.bias = nn.Parameter(torch.ones_like(like)), nn.Parameter(torch.zeros_like(like))

    def gains_are_folded(self) -> bool:
        """Return whether the layer's parameters hold the gains while it runs, so that its output has them already."""
        mode = self.context.mode
        if not self.folds_gains or torch.compiler.is_compiling():
            return False
        return mode is GateMode.USE or (mode is GateMode.TASK and not self.training)

    def drop_gains(self) -> None:
        """Take the gains and biases away."""
        self.gain, self.bias = None, None

    def mask(self) -> Tensor | None:
        """Return the mask `(units,)` that currently applies; None if gates are open.

        Raises:
            NoTaskError: Tasks have been learnt and this thread has chosen none.
        """
        context, mode = self.context, self.context.mode
        if mode is GateMode.TASK:
            return self.soft_mask() if self.training else self.hard_mask()
        if mode is GateMode.OPEN:
            return None
        if mode is GateMode.USE and context.lock.is_mine():
            return context.masks[self.name]
        where = "in a thread without a `use` block of its own" if mode is GateMode.USE else "outside any task"
        raise NoTaskError(
            f"The forward reached the gate of '{self.name}' {where}. Say which task the batch is of: "
            "`with session.use(task): model(x)`, or train a new one inside `with session.task(...)`."
        )

    def soft_mask(self) -> Tensor:
        """Return `sigmoid(s e)`; its backward compensates the gradient for the scale."""
        context = self.context
        if torch.compiler.is_compiling():
            if not context.learns_masks:
                return self.hard_mask() + 0 * self.embedding
            scale = context.scale.to(self.embedding.device)
            return annealed_gate(self.embedding, scale, context.s_max, context.clamp_threshold)
        return apply_linearised_mask(self.embedding, *context.linearised_mask(self))

    def hard_mask(self) -> Tensor:
        """Return the binary mask `e > 0` in the dtype of the embedding."""
        return hard_mask(self.embedding.detach()).to(self.embedding.dtype)

    def forward(self, output: Tensor) -> Tensor:
        """Multiply each unit of a layer's output by its mask, after its gain and bias if it has them."""
        mask = self.mask()
        if mask is None:
            return output
        if selects(self.context, output):
            output = shut(mask, output, self.unit_axis)
        if self.gain is None or self.bias is None or self.gains_are_folded():
            return output * broadcast_along(mask, output, self.unit_axis)
        if self.calibration is not None and not torch.compiler.is_compiling():
            self.calibration.see(self, output)
        gain, bias = mask * self.gain, mask * self.bias
        # Two operations, not `addcmul`: attribution measures have rules for both.
        return output * broadcast_along(gain, output, self.unit_axis) + broadcast_along(bias, output, self.unit_axis)

    def extra_repr(self) -> str:
        """Show the number of units."""
        return f"{self.name}, units={self.embedding.numel()}"


def selects(context: GateContext, output: Tensor) -> bool:
    """Return whether closed units must be set to zero, since a product would not do: infinity times 0 is NaN.

    In half precision a later task's unit may overflow; finished tasks, to which it is closed, must not see it.
    """
    return context.mode is GateMode.USE and output.dtype in _HALF


def shut(mask: Tensor, output: Tensor, axis: int) -> Tensor:
    """Return an output with zeros where a mask `(units,)` along an axis is zero, whatever was there."""
    return output.masked_fill(broadcast_along(mask, output, axis) == 0, 0.0)


def broadcast_along(mask: Tensor, output: Tensor, axis: int) -> Tensor:
    """Cast a mask `(units,)` to the dtype of `output` and reshape it to broadcast over all its axes but `axis`."""
    shape = [1] * output.dim()
    shape[axis] = mask.numel()
    return mask.to(output.dtype).view(shape)
