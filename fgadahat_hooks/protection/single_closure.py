"""A closure that an optimizer calls exactly once in a step, before it changes any parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from fgadahat_hooks.errors import OptimizerError


class SingleClosure:
    """Wraps the user's closure, and runs a callback once the closure has made gradients."""

    def __init__(self, optimizer: Optimizer, closure: Callable[[], Any], on_gradients: Callable[[], None]) -> None:
        """Call nothing yet.

        Args:
            optimizer: The optimizer that steps.
            closure: What the user passed to its step.
            on_gradients: Called after the closure, unless no parameter has a gradient.
        """
        self._optimizer = optimizer
        self._closure = closure
        self._on_gradients = on_gradients
        self._called = False
        self._without_gradient: list[tuple[Any, int]] = []  # parameters and their versions, if none had a gradient

    def __call__(self) -> Any:
        """Call the closure.

        Raises:
            OptimizerError: It was called before in this step.
        """
        if self._called:
            raise OptimizerError(
                f"{type(self._optimizer).__name__} called its closure a second time within one step. Protected with "
                "single_closure=True it may do so once, before it moves a parameter. Protect it without that."
            )
        result = self._closure()
        self._called = True
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        if any(p.grad is not None for p in held):
            self._on_gradients()
        else:
            self._without_gradient = [(p, p._version) for p in held]
        return result

    def made_a_step(self) -> bool:
        """Return whether there were gradients, so that the optimizer made a real step.

        Raises:
            OptimizerError: The closure was never called, or parameters were changed although there was no gradient.
        """
        name = type(self._optimizer).__name__
        if not self._called:
            raise OptimizerError(
                f"{name} stepped without calling the closure it was given, so the step was not protected. Call "
                "backward() first and step() without a closure."
            )
        if any(p._version != version for p, version in self._without_gradient):
            raise OptimizerError(
                f"{name} changed parameters although none of them had a gradient. Finished tasks may be changed. Call "
                "step() only after backward()."
            )
        return not self._without_gradient
