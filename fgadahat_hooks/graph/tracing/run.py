"""The forwards of one trace: run the model under the dispatch mode, with hooks that follow its modules."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from fgadahat_hooks.errors import TraceError
from fgadahat_hooks.graph.tracing.custom_forwards import has_own_forward
from fgadahat_hooks.graph.tracing.dispatch_mode import LabelMode, is_batch_norm
from fgadahat_hooks.graph.tracing.execution_paths import PathRecorder, path_modules
from fgadahat_hooks.graph.tracing.forward import (
    ExampleInputs,
    all_output_tensors,
    copy_inputs,
    isolated_evaluation,
    output_tensors,
    run_example,
)
from fgadahat_hooks.graph.tracing.layer_record import LayerRecord
from fgadahat_hooks.graph.tracing.operation import plain_tensors
from fgadahat_hooks.graph.tracing.origins import Origins
from fgadahat_hooks.graph.tracing.output_layers import OutputLayers, find_output_layers, weight_names
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.storage import is_plain
from fgadahat_hooks.graph.tracing.training_mode import preserve_evaluation_records, training_mode, unused_layers
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.progress import Bar, progress


def record_forwards(
    model: nn.Module, example_inputs: ExampleInputs, recorder: Recorder, *, training: bool = True
) -> OutputLayers:
    """Run the model's forward and record it; the model is left as it was.

    A labelled tensor that something still holds after the forward (a cache, a recurrent state) may be read by the next
    forward, with the values of another task. If there are such tensors, the forward runs once more with all of them
    live.

    Args:
        model: The model.
        example_inputs: As for `trace`.
        recorder: Receives what happens.
        training: Whether to run once more in training mode if evaluation leaves layers unused.

    Raises:
        TraceError: The forward raised.
    """
    mode = LabelMode(model, recorder)
    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    label = f"tracing {type(model).__name__}"
    torch.clear_autocast_cache()
    with isolated_evaluation(model), HookSet.temporary() as hooks, progress(label, len(leaves)) as bar:
        _count_modules(hooks, bar, leaves)
        _follow_modules(hooks, mode, model)
        found = _Forwards(mode, model, example_inputs, bar, label).run(training)
    torch.clear_autocast_cache()
    return found


# ------------------------------------------------------------------ forwards
@dataclass(frozen=True)
class _Forwards:
    """The forwards of one trace, its hooks installed."""

    mode: LabelMode
    model: nn.Module
    example_inputs: ExampleInputs
    bar: Bar
    label: str

    def run(self, training: bool) -> OutputLayers:
        """Run in evaluation mode, for unused layers in training mode too, and both once more if tensors are held."""
        recorder = self.mode.recorder
        found = self._evaluate()
        unused = unused_layers(recorder) if training else []
        if unused:
            self.bar.restart(f"{self.label} in training mode")
        training_heads = self._train().heads if unused else ()
        if recorder.store.held_storages():
            self._run_again(with_training=bool(unused))
        auxiliary = tuple(name for name in unused if recorder.records[name].reached)
        heads = (*found.heads, *(name for name in training_heads if name in auxiliary))
        return replace(found, heads=heads, auxiliary=auxiliary)

    def _run_again(self, with_training: bool) -> None:
        """Run once more with the tensors live that outlived the first forwards."""
        recorder = self.mode.recorder
        recorder.store.forget(recorder.store.held_storages())
        recorder.clear_readers()
        self.bar.restart(f"{self.label} once more")
        self._evaluate()
        if with_training:
            self._train()

    def _evaluate(self) -> OutputLayers:
        """Run one forward in the model's present mode; return what gives the output."""
        recorder = self.mode.recorder
        inputs = copy_inputs(self.example_inputs)
        origins = self.mode.origins = Origins(weight_names(self.model, recorder), self.model.buffers())
        recorder.paths.begin(self.model.training)
        with self.mode:
            output = run_example(self.model, inputs)
        outputs = [t for t in output_tensors(output) if is_plain(t)]
        for tensor in outputs:
            recorder.record_read(tensor, None)
        every = [t for t in all_output_tensors(output) if is_plain(t)]
        return find_output_layers(recorder, origins, self.model, every)

    def _train(self) -> OutputLayers:
        """Return the heads of a forward in training mode; none if it cannot run on inputs for evaluation."""
        self.mode.stack.clear()
        with training_mode(self.model), preserve_evaluation_records(self.mode.recorder), suppress(TraceError):
            return self._evaluate()
        return OutputLayers()


# ------------------------------------------------------------------ hooks
def _count_modules(hooks: HookSet, bar: Bar, leaves: Sequence[nn.Module]) -> None:
    """Advance a visible bar with each module that has run."""

    def advance(*_: Any) -> None:
        bar.advance()

    for module in leaves if bar.visible else ():
        if not isinstance(module, torch.jit.ScriptModule):
            hooks.forward(module, advance)


def _follow_modules(hooks: HookSet, mode: LabelMode, model: nn.Module) -> None:
    """Install the hooks that follow which module runs; modules of TorchScript accept none."""
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            _follow(hooks, mode, name, module)
    for name, module in path_modules(model):
        hooks.forward_pre(module, partial(_record_step, mode.recorder.paths, name))


def _record_step(paths: PathRecorder, name: str, *_: Any) -> None:
    """Forward pre-hook."""
    paths.step(name)


def _follow(hooks: HookSet, mode: LabelMode, name: str, module: nn.Module) -> None:
    """Keep the mode's stack of running modules, and label the module's output.

    The hooks run where a gate's hooks would: after the user's pre-hooks, before the user's forward hooks.
    """
    record = mode.recorder.records.get(name)
    custom = record is not None and has_own_forward(module, record.kind.own_class(module))

    def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
        mode.stack.append(name)
        if record is not None:
            mode.origins.read_by_layer(plain_tensors(args))
        if custom and record is not None:
            mode.custom.enter(record)

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not mode.stack or mode.stack[-1] != name:
            return None
        mode.stack.pop()
        with _disable_current_modes():
            if record is None:
                _record_module_output(mode.recorder, name, module, output)
                return None
            return _record_layer_output(mode, record, output, custom)

    hooks.forward_pre(module, enter)
    hooks.forward(module, leave, always=True, first=True)


def _record_layer_output(mode: LabelMode, record: LayerRecord, output: Any, custom: bool) -> Any:
    """Label a layer's output; return what replaces it if the layer has a forward of its own, else None."""
    if custom:
        output = mode.custom.leave(record, output)
    mode.recorder.record_output(record, output)
    mode.origins.put_layer(output, record.name)
    return output if custom else None


def _record_module_output(recorder: Recorder, name: str, module: nn.Module, output: Any) -> None:
    """Record where the output of a module that is no recorded layer shows units."""
    if is_batch_norm(module):
        recorder.record_norm_output(name, output)
        return
    for tensor in output_tensors(output)[:1]:
        recorder.find_output_axis(name, tensor)
