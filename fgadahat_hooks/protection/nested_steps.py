"""Nested steps: an optimizer subclass whose `step` calls `super().step()` runs every step hook twice."""

from __future__ import annotations

import sys
import weakref
from types import FrameType

from torch.optim import Optimizer


class NestedSteps:
    """Finds the outermost step of an optimizer.

    torch wraps `step` of each class on its own, so the hooks of an optimizer are called by the wrapper of the subclass
    and again by that of its base; only the outermost counts. A step that raises ends without its post-hook. The next
    step is then still an outermost one: the wrapper of the step that raised is no longer on the call stack.
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
        if wrapper is None or _is_on_stack(self._wrappers.get(optimizer), wrapper):
            return False
        self._wrappers[optimizer] = wrapper
        return True

    def ends(self, optimizer: Optimizer, wrapper: FrameType | None) -> bool:
        """Return whether the outermost step ends."""
        if self._wrappers.get(optimizer) is not wrapper:
            return False
        del self._wrappers[optimizer]
        return True


def _is_on_stack(outer: FrameType | None, inner: FrameType) -> bool:
    """Return whether `outer` is `inner` or one of the frames that called it."""
    frame: FrameType | None = inner if outer is not None else None
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is not None


def calling_frame() -> FrameType | None:
    """Return the frame that called the function that calls this one."""
    return sys._getframe(2)
