"""Compare what finished tasks read with what was kept, wherever something can have written since; put it back.

Inside a protected optimizer's step, the callbacks limit what it writes. This module is for all other writers: an
average of weights that is copied into the model, clipping after a step, a step written by hand, other weights that are
loaded, an optimizer that moves weights between its steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import nn

from fgadahat_hooks.callbacks import CallbackList
from fgadahat_hooks.errors import ProtectedWeightsRestoredWarning, WeightsChangedError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.kept_digest import KeptDigest
from fgadahat_hooks.gates.kept_weights import Kept, KeptWeights
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.protection.keeping import keep_weights


def check_kept(
    attached: AttachedModel, state: TaskState, callbacks: CallbackList, when: str, *, running: bool, by_value: bool
) -> None:
    """Put back what finished tasks read if something has written it, and warn; take it as it is if nothing is kept yet.

    Args:
        attached: The model.
        state: The tasks that are finished.
        callbacks: They determine how strictly gated weights are protected.
        when: What is about to happen, for the message: "when task 'a' ended".
        running: Whether a task is running.
        by_value: Compare values; else only those of tensors that count a write since they were last compared.

    Raises:
        WeightsChangedError: Putting back cannot be right: other weights were loaded between tasks, adapters are merged,
            or a frozen tensor was changed of which there is no copy.
    """
    if state.kept is None:
        keep_weights(attached, state, callbacks)
        return
    if not state.watched:
        return
    kept = state.kept
    entries = kept.entries(running)
    if not by_value:
        entries = {name: entries[name] for name in kept.written(entries)}
        if not entries:
            return
    changed = kept.differing(entries)
    if changed:
        _put_back(attached, kept, {name: entries[name] for name in changed}, changed, when, running)
    kept.loaded = False
    if kept.replaced():
        keep_weights(attached, state, callbacks)
    else:
        kept.see()


def _put_back(
    attached: AttachedModel,
    kept: KeptWeights,
    entries: Mapping[str, Kept],
    changed: Mapping[str, int],
    when: str,
    running: bool,
) -> None:
    _refuse_changed(attached.model, kept, entries, changed, when, running)
    rounded = all(kept.only_rounded(name, entry) for name, entry in entries.items())
    kept.put_back(entries)
    new = changed.keys() - kept.warned
    if rounded or not new:
        return
    kept.warned |= new
    warnings.warn(
        f"{_what(changed)} had changed {when}, and were put back: finished tasks are as they were. Only a protected "
        "optimizer's step may write while a task runs. Likely causes: an average of weights (EMA) that was copied into "
        "the model, clipping or projecting after the step, a step written by hand, weights that were loaded, an "
        "optimizer that moves weights between its steps, a teacher that follows the trained part by averaging (attach "
        "to the part that learns, and keep the teacher outside). What they do to all other entries is kept; do it "
        "inside the task's block, before the task ends.",
        ProtectedWeightsRestoredWarning,
        stacklevel=4,
    )


def _refuse_changed(
    model: nn.Module,
    kept: KeptWeights,
    entries: Mapping[str, Kept],
    changed: Mapping[str, int],
    when: str,
    running: bool,
) -> None:
    """Raise where putting back cannot be right, or cannot be done; nothing is changed then."""
    merged = [name for name in changed if _in_merged_adapter(model, name)]
    lost = [name for name, entry in entries.items() if isinstance(entry, KeptDigest)]
    if merged:
        cause = f"adapters are merged into '{merged[0]}'"
        remedy = "Take them out again (`unmerge_adapter()`); finished tasks were learnt with the adapters beside it"
    elif kept.loaded and not running:
        cause = "other weights were loaded into the model after the last task had ended"
        remedy = (
            "Load the weights that it ended with. To load weights for good, do it inside the task's block; what "
            "finished tasks read is kept there"
        )
    elif lost:
        cause = f"'{lost[0]}' is frozen and was written into, and is too large for a copy to be kept"
        remedy = "Load its values again. A parameter that must follow another one cannot be frozen from the beginning"
    else:
        return
    raise WeightsChangedError(f"{_what(changed)} had changed {when}: {cause}. {remedy}. Nothing was changed.")


def _what(changed: Mapping[str, int]) -> str:
    first = next(iter(changed))
    entries = sum(changed.values())
    return f"{entries:,} entries of {len(changed)} tensor(s) that finished tasks read, first '{first}',"


def _in_merged_adapter(model: nn.Module, name: str) -> bool:
    """Return whether a tensor is inside a module that says that adapters are merged into it, as PEFT's layers do."""
    parts = name.split(".")[:-1]
    paths = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    modules = [model.get_submodule(path) for path in paths]
    return any(getattr(m, "merged", None) is True or bool(getattr(m, "merged_adapters", None)) for m in modules)
