"""Target layers that the example forward did not reach: passed over, or gated already if other inputs may take them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import nn

from fgadahat_hooks.errors import UnreachedLayerError
from fgadahat_hooks.graph.tracing.layer_record import LayerRecord
from fgadahat_hooks.graph.tracing.recorder import Recorder

NOT_USED = "not used by the example inputs"


@dataclass(frozen=True)
class Unreached:
    """The targets that no traced forward reached.

    Attributes:
        passed_over: Those that get no gate, with the reason.
        unseen: Those that get one although no forward has shown it: experts that the example did not choose.
        heads: Those that are heads beside one that was used: a model with a head for each task.
    """

    passed_over: dict[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


def sort_unreached(
    recorder: Recorder, model: nn.Module, gated: Sequence[str], heads: Sequence[str], explicit: Collection[str]
) -> Unreached:
    """Tell what to do with the targets that no forward reached.

    A layer that no forward used, beside a layer of the same place in a `ModuleList` or `ModuleDict` that was used
    (`experts.0.up`, `experts.1.up`), belongs to a model that chooses its way, and will be reached by other inputs.

    Args:
        recorder: The record of the forwards.
        model: The model.
        gated: The targets, heads left out.
        heads: The heads that were used.
        explicit: Names that the spec gives in full: it must be possible to gate them.

    Raises:
        UnreachedLayerError: A layer that the spec names was not reached.
    """
    missing = [recorder.records[name] for name in gated if not recorder.records[name].reached]
    beside = _beside_used_ones(recorder, model, missing)
    more = _in_places_of(model, heads, beside)
    rest = [record for record in missing if record.name not in beside]
    _refuse([record for record in rest if record.name in explicit])
    passed_over = {record.name: _reason(record) for record in rest}
    return Unreached(passed_over, tuple(name for name in beside if name not in more), more)


def _beside_used_ones(recorder: Recorder, model: nn.Module, missing: Iterable[LayerRecord]) -> tuple[str, ...]:
    """Return the layers that no forward used, and whose neighbours were."""
    reached = [name for name, record in recorder.records.items() if record.reached]
    return _in_places_of(model, reached, [record.name for record in missing if not _was_used(record)])


def _in_places_of(model: nn.Module, known: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names that are in the place of a known one, in a neighbour."""
    places = {_place(model, name) for name in known}
    return tuple(name for name in names if _place(model, name) in places)


def _place(model: nn.Module, name: str) -> str:
    """Return a name without its keys in lists and dicts of modules: neighbours' layers of one place have the same."""
    place, module = [], model
    for part in name.split("."):
        place.append("#" if isinstance(module, nn.ModuleList | nn.ModuleDict) else part)
        module = module.get_submodule(part)
    return ".".join(place)


def _was_used(record: LayerRecord) -> bool:
    return record.called or record.inputs is not None or bool(record.functional_users)


def _reason(record: LayerRecord) -> str:
    return next(_reasons([record]), NOT_USED)


def _reasons(records: Sequence[LayerRecord]) -> Iterator[str]:
    """Yield why gates cannot act on layers: outputs of an unexpected shape, and mixed weights."""
    for record in records:
        if record.unsupported_output:
            yield record.unsupported_output
        elif record.mixed_weight:
            yield f"the weight of '{record.name}' is used only after it was transformed"


def _refuse(missing: Sequence[LayerRecord]) -> None:
    if not missing:
        return
    names, it = ", ".join(f"'{r.name}'" for r in missing), "it" if len(missing) == 1 else "them"
    reasons = "; ".join(_reasons(missing))
    why = f" ({reasons})" if reasons else ""
    raise UnreachedLayerError(
        f"The forward never used {names} on the example inputs, in evaluation or training mode, in a way that a gate "
        f"could act on{why}. Add {it} to gates.exclude, or pass example_inputs that reach {it}."
    )
