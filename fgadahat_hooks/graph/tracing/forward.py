"""Call a model on example inputs, and leave everything as it was."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import TraceError


class ModelCall:
    """Example inputs that are positional and keyword arguments together."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the arguments."""
        self.args = args
        self.kwargs = kwargs

    def __call__(self, model: nn.Module) -> Any:
        """Call the model on the arguments."""
        return model(*self.args, **self.kwargs)


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


def copy_inputs(example_inputs: ExampleInputs) -> ExampleInputs:
    """Copy the tensors of example inputs, so that a forward that writes into its inputs does not change the user's."""
    if callable(example_inputs) and not isinstance(example_inputs, Tensor | Mapping | tuple | list):
        return example_inputs
    copied: ExampleInputs = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), example_inputs)
    return copied


def python_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield all modules except those of TorchScript, whose state cannot be reached."""
    yield from (m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule))


# ------------------------------------------------------------------ restoring everything
@contextmanager
def isolated_evaluation(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode without gradients.

    Modes, buffers, plain tensor attributes, random states and the fast path of attention are restored after it.
    """
    with ExitStack() as stack:
        stack.enter_context(_restore_random_states(model))
        stack.enter_context(_disable_fast_path())
        stack.enter_context(_restore_tensors(model))
        stack.enter_context(_evaluation_mode(model))
        stack.enter_context(disable_compilation())
        with torch.inference_mode(False), torch.no_grad():
            yield


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and back, by `train`, since a class may override it to do more."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        if modes[model]:
            model.train()
        for module, training in modes.items():
            module.training = training


@contextmanager
def _disable_fast_path() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def disable_compilation() -> Iterator[None]:
    """Run compiled parts of the model in eager mode: a dispatch mode sees nothing of what a compiled part runs."""
    flex = sys.modules.get("torch.nn.attention.flex_attention")
    flag = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    set_stance = getattr(torch.compiler, "set_stance", None)
    with ExitStack() as stack:
        if hasattr(flex, flag):
            stack.callback(setattr, flex, flag, getattr(flex, flag))
            setattr(flex, flag, True)
        if set_stance is not None and "torch._dynamo" in sys.modules:
            stack.enter_context(set_stance("force_eager"))
        yield


@contextmanager
def _restore_random_states(model: nn.Module) -> Iterator[None]:
    devices = {t.device for t in model.parameters() if t.device.type == "cuda"}
    python = random.getstate()
    try:
        with torch.random.fork_rng(devices=[d.index for d in devices]):
            yield
    finally:
        random.setstate(python)


@contextmanager
def _restore_tensors(model: nn.Module) -> Iterator[None]:
    """Restore which tensors are the modules' buffers and plain attributes, and their values."""
    owners = [(d, dict(d)) for m in python_modules(model) for d in (m._buffers, vars(m))]
    tensors = {id(v): v for _, before in owners for v in before.values() if _is_data(v)}
    values = [(t, t.detach().clone()) for t in tensors.values()]
    try:
        yield
    finally:
        for now, before in owners:
            _restore_names(now, before)
        with torch.no_grad():
            for tensor, saved in values:
                if not torch.equal(tensor, saved):  # a needless copy would make a pending backward fail
                    tensor.copy_(saved)


def _is_data(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and not nn.parameter.is_lazy(value)


def _restore_names(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [n for n, v in now.items() if _is_data(v) and before.get(n) is not v]:
        now.pop(name)
        if name in before:
            now[name] = before[name]
    for name, value in before.items():
        if _is_data(value) and now.get(name) is not value:
            now[name] = value


# ------------------------------------------------------------------ calling
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
    """Describe example inputs in a few words, for messages."""
    if isinstance(example_inputs, Tensor):
        return f"a tensor of shape {tuple(example_inputs.shape)}"
    if isinstance(example_inputs, Mapping):
        return "a dict with keys " + ", ".join(map(str, example_inputs))
    if isinstance(example_inputs, tuple | list):
        return f"a {type(example_inputs).__name__} of {len(example_inputs)}"
    return f"a {type(example_inputs).__name__}"


def output_tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors in a model's output, of any structure, in order."""
    return [t for t in all_output_tensors(output) if t.is_floating_point()]


def all_output_tensors(output: Any) -> list[Tensor]:
    """Return the tensors in a model's output, those of indices included."""
    found: list[Tensor] = []
    _collect(output, found, set())
    return found


def _collect(output: Any, found: list[Tensor], seen: set[int]) -> None:
    if isinstance(output, Tensor):
        found.append(output)
        return
    if isinstance(output, nn.Module | type) or id(output) in seen:
        return
    seen.add(id(output))
    if isinstance(output, Mapping):
        output = list(output.values())
    elif not isinstance(output, tuple | list):
        output = list(getattr(output, "__dict__", {}).values())
    for value in output:
        _collect(value, found, seen)
