"""Keep parameters that are frozen after the first task out of an optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.errors import OptimizerError
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.gates.task_tensors import TaskTensors


class FrozenParameters:
    """Hides the gradients of frozen parameters: every optimizer leaves a parameter without gradient alone."""

    def __init__(self, tensors: TaskTensors, state: TaskState) -> None:
        """Hide nothing yet.

        Args:
            tensors: Access to the model's tensors.
            state: Finished tasks; it names the frozen parameters.
        """
        self._tensors = tensors
        self._state = state
        self._hidden_grads: list[tuple[nn.Parameter, Tensor]] = []
        self._versions: list[tuple[str, nn.Parameter, int]] = []
        self._values: list[tuple[nn.Parameter, Tensor]] = []

    def hide(self, held: set[int], closure: bool) -> None:
        """Hide gradients before a step, or copy values where a closure makes gradients during the step.

        Args:
            held: Identities of the parameters that the optimizer steps.
            closure: Whether the optimizer calls a closure.
        """
        self._hidden_grads, self._versions, self._values = [], [], []
        for name in self._state.frozen:
            parameter = self._tensors.tensor(name)
            if id(parameter) not in held or not isinstance(parameter, nn.Parameter):
                continue
            if closure:
                self._values.append((parameter, parameter.detach().clone()))
                continue
            self._versions.append((name, parameter, parameter._version))
            if parameter.grad is not None:
                self._hidden_grads.append((parameter, parameter.grad))
                parameter.grad = None

    def restore(self, optimizer: Optimizer) -> None:
        """Restore gradients and values after a step.

        Raises:
            OptimizerError: The optimizer changed a frozen parameter that had no gradient.
        """
        with torch.no_grad():
            for parameter, value in self._values:
                parameter.copy_(value)
        for parameter, grad in self._hidden_grads:
            parameter.grad = grad
        moved = [name for name, parameter, version in self._versions if parameter._version != version]
        self._hidden_grads, self._values = [], []
        if moved:
            raise OptimizerError(
                f"{type(optimizer).__name__} changed the frozen parameter '{moved[0]}' although it had no gradient. "
                "Finished tasks need its values. Leave frozen parameters out of this optimizer: build it from "
                "`session.parameter_groups(lr=...)` inside the task."
            )
