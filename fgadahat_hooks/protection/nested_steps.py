"""Steps within steps: a subclass whose `step` calls `super().step()` runs every step hook twice."""

from __future__ import annotations

import sys
import weakref
from types import FrameType

from torch.optim import Optimizer


class NestedSteps:
    """Tells a step inside another one of the same optimizer from one that follows a step that raised.

    torch wraps `step` of each class on its own, so the hooks of an optimizer are called by the wrapper of the subclass
    and again by that of its base. What happens around a step must enclose the outermost. A step that raises ends
    without its post-hook; its wrapper is then no longer among the functions that run.
    """

    def __init__(self) -> None:
        """Start with no step running."""
        self._wrappers: weakref.WeakKeyDictionary[Optimizer, FrameType] = weakref.WeakKeyDictionary()

    def begins(self, optimizer: Optimizer, wrapper: FrameType | None) -> bool:
        """Return whether the outermost step begins.

        Args:
            optimizer: The optimizer.
            wrapper: The frame that calls the hook.
        """
        if wrapper is None or _runs(self._wrappers.get(optimizer), wrapper):
            return False
        self._wrappers[optimizer] = wrapper
        return True

    def ends(self, optimizer: Optimizer, wrapper: FrameType | None) -> bool:
        """Return whether the outermost step ends."""
        if self._wrappers.get(optimizer) is not wrapper:
            return False
        del self._wrappers[optimizer]
        return True


def _runs(outer: FrameType | None, inner: FrameType) -> bool:
    frame: FrameType | None = inner if outer is not None else None
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is not None


def calling_frame() -> FrameType | None:
    """Return the frame that called the function that calls this one."""
    return sys._getframe(2)
