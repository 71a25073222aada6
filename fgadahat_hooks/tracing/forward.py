"""One example forward that leaves no trace of itself on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import TraceError

ExampleInputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any] | Callable[[nn.Module], Any]


def call_model(model: nn.Module, example_inputs: ExampleInputs) -> Any:
    """Call the model on example inputs.

    Args:
        model: The model.
        example_inputs: A tensor (the only argument), a tuple or list (positional arguments), a mapping (keyword
            arguments), or a function that takes the model and calls it.
    """
    if isinstance(example_inputs, Tensor):
        return model(example_inputs)
    if isinstance(example_inputs, Mapping):
        return model(**example_inputs)
    if isinstance(example_inputs, tuple | list):
        return model(*example_inputs)
    return example_inputs(model)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode without gradients; restore modes, buffers and random state after it."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        model.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), torch.random.fork_rng():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)


def run_example(model: nn.Module, example_inputs: ExampleInputs) -> Any:
    """Call the model on the example inputs; an exception of the forward becomes a `TraceError`."""
    try:
        return call_model(model, example_inputs)
    except Exception as error:
        raise TraceError(
            f"The forward of {type(model).__name__} raised {type(error).__name__} on the example inputs "
            f"({describe(example_inputs)}): {error}. Pass example_inputs that the model accepts: a tensor, a tuple of "
            "positional arguments, a dict of keyword arguments, or a function that calls the model."
        ) from error


def describe(example_inputs: ExampleInputs) -> str:
    """Say in a few words what example inputs are."""
    if isinstance(example_inputs, Tensor):
        return f"a tensor of shape {tuple(example_inputs.shape)}"
    if isinstance(example_inputs, Mapping):
        return "a dict with keys " + ", ".join(map(str, example_inputs))
    if isinstance(example_inputs, tuple | list):
        return f"a {type(example_inputs).__name__} of {len(example_inputs)}"
    return f"a {type(example_inputs).__name__}"


def output_tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors in whatever a model returned, in order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [t for value in output.values() for t in output_tensors(value)]
    if isinstance(output, tuple | list):
        return [t for value in output for t in output_tensors(value)]
    return [t for value in getattr(output, "__dict__", {}).values() for t in output_tensors(value)]
