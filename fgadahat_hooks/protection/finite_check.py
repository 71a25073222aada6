"""Notice parameters that training made NaN or infinite, without a wait in any step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import NonFiniteError

EVERY = 64
"""All parameters are looked at after the steps 1, 2, 4, ... and then after each multiple of this; and at the end."""


class FiniteCheck:
    """Looks at all parameters after some steps, on their device; the answer is read one step later.

    What finished tasks read is selected, not multiplied, so NaN does not reach it. What remains is to tell soon, and
    without making the host wait for the device: a full look costs about as much as one pass over the parameters.
    """

    def __init__(self) -> None:
        """Look at nothing yet."""
        self._step = 0
        self._answer: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def look(self, step: int, parameters: Iterable[Tensor]) -> None:
        """Look at the parameters if the step's turn has come.

        Args:
            step: Number of steps that were made.
            parameters: All parameters that may train.
        """
        if step % EVERY and (step > EVERY or step & (step - 1)):
            return
        sums = [p.detach().sum(dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
        if sums:
            self._step = step
            self._send(torch.isfinite(torch.stack([s.to(sums[0].device, torch.float64) for s in sums])).all())

    def _send(self, answer: Tensor) -> None:
        if answer.is_cuda:
            self._answer = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._answer.copy_(answer, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._answer, self._copied = answer, None

    def raise_if_found(self, model: nn.Module) -> None:
        """Read the answer of the last look.

        Raises:
            NonFiniteError: Some parameters are not finite; names them.
        """
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        if answer.tolist():
            return
        bad = not_finite({name: p for name, p in model.named_parameters() if p.requires_grad})
        if bad:  # else only the sum was too large
            raise NonFiniteError(
                f"Step {self._step} of the task left {len(bad)} parameter(s) NaN or infinite, first '{bad[0]}'. What "
                "finished tasks read is as it was. When the task's block is left, each of these goes back to its "
                "values before the task. Lower the learning rate, clip gradients, or skip batches with a bad loss."
            )


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the floating-point tensors that hold NaN or infinity."""
    return [n for n, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
