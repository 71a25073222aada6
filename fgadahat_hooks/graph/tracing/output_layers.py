"""Which layers give a model's outputs: those that reach an output, and that no other layer reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.graph.tracing.origins import Origin, Origins
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key
from fgadahat_hooks.layers import class_type_of, layer_type_of

_PARAMETRIZED = ".parametrizations."


@dataclass(frozen=True)
class OutputLayers:
    """What gives a model's output.

    Attributes:
        heads: Names of the modules, in order of execution.
        auxiliary: Layers that only a forward in training mode used, heads or not.
        parameters: Names of parameters that give outputs and are no module's whole: a tied table, a bare matrix.
        unclear: What each output comes from of which no head can be told, in words.
        candidates: Modules that no layer reads, but which do not clearly give the output.
    """

    heads: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()


def weight_names(model: nn.Module, recorder: Recorder) -> Callable[[Tensor, bool], str | None]:
    """Return a function that names weights, for `Origins`: by their layer, their module, or by themselves."""
    bare = _bare_names(model, recorder)

    def name_of(t: Tensor, lookup: bool) -> str | None:
        key = storage_key(t)
        owner = recorder.weight_owners.get(key)
        if owner is None:
            return None if lookup else bare.get(key)
        if _is_table(recorder, owner):
            return owner if lookup else f"{owner}.weight"
        return None if lookup else owner  # rows of a tied head

    return name_of


def _bare_names(model: nn.Module, recorder: Recorder) -> dict[int, str]:
    """Return names for the matrices that are no known layer's weight, by storage."""
    modules = dict(model.named_modules())
    return {
        storage_key(parameter): _lifted(name, modules)
        for name, parameter in model.named_parameters()
        if not is_lazy(parameter) and is_plain(parameter) and parameter.dim() > 1 and _counts(name, modules)
        if storage_key(parameter) not in recorder.weight_owners
    }


def _counts(name: str, modules: dict[str, nn.Module]) -> bool:
    return not isinstance(modules[name.rpartition(".")[0]], nn.RNNBase)  # its weights read each other's outputs


def _lifted(name: str, modules: dict[str, nn.Module]) -> str:
    """Return the module that a matrix stands for: its layer if that is reparametrized, or a module of its own."""
    owner = name.partition(_PARAMETRIZED)[0] if _PARAMETRIZED in name else name.rpartition(".")[0]
    module = modules[owner]
    kind = layer_type_of(module)
    if kind is not None and kind.inputs(module) == 0:  # a table, whose rows are looked up too: not drawn for a task
        return name
    whole = owner and (class_type_of(module) is not None or next(module.children(), None) is None)
    return owner if whole else name


def find_output_layers(
    recorder: Recorder, origins: Origins, model: nn.Module, outputs: Sequence[Tensor]
) -> OutputLayers:
    """Return the layers that give a model's outputs.

    A layer gives it if the layer's units reach it through operations that keep what a unit means, and no other layer
    reads them. Where one output shows heads, all layers that reach an output and that no layer reads are heads too:
    a gate would shut outputs.
    """
    ends = [origins.of(t) for t in outputs]
    free = [origin.layers - origins.read for origin in (*ends, *origins.ends)]
    clear = any(origin.clean and origin.layers and origin.layers.isdisjoint(origins.read) for origin in ends)
    found = _in_order(frozenset().union(*free), recorder, model)
    if not clear:
        return OutputLayers(
            unclear=tuple(_describe(outputs, ends)), candidates=_candidates(found, ends, origins, model)
        )
    modules = [name for name in found if _is_module(model, name)]
    parameters = tuple(name for name in found if name not in modules)
    return OutputLayers(tuple(modules), parameters=parameters)


def _in_order(names: Iterable[str], recorder: Recorder, model: nn.Module) -> list[str]:
    """Return names in order of execution; an embedding is no head, since its rows are looked up."""
    place = {name: number for number, name in enumerate(recorder.order)}
    place |= {name: len(place) + n for n, (name, _) in enumerate(model.named_modules()) if name not in place}
    kept = [name for name in names if not _is_table(recorder, name)]
    return sorted(kept, key=lambda name: (place.get(name, len(place)), name))


def _is_table(recorder: Recorder, name: str) -> bool:
    record = recorder.records.get(name)
    return record is not None and record.kind.inputs(record.module) == 0


def _is_module(model: nn.Module, name: str) -> bool:
    parent, _, local = name.rpartition(".")
    return local not in model.get_submodule(parent)._parameters


def _candidates(found: Sequence[str], ends: Iterable[Origin], origins: Origins, model: nn.Module) -> tuple[str, ...]:
    """Return the modules that alone reach an output: none where what other layers read is added to it."""
    alone = [origin.layers for origin in ends if origin.layers and origin.layers.isdisjoint(origins.read)]
    return tuple(name for name in found if _is_module(model, name) and any(name in layers for layers in alone))


def _describe(outputs: Iterable[Tensor], ends: Iterable[Origin]) -> Iterable[str]:
    for number, (t, origin) in enumerate(zip(outputs, ends, strict=True), 1):
        way = " > ".join(origin.trail) or "no operation on the inputs"
        yield f"output {number} of shape {tuple(t.shape)} from {way}"
