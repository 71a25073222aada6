"""The spec: all choices of a user, validated on construction and immutable.

Each field's description gives its meaning, its unit and its source. The papers are cited as HAT (Serra et al., ICML
2018), AdaHAT (Wang et al., ECML PKDD 2024) and FG-AdaHAT (the successor of AdaHAT by the same first author).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from fgadahat_hooks.errors import Problem, SpecError
from fgadahat_hooks.spec.base import (
    Block,
    Count,
    Flag,
    NamesOrNone,
    NonNegative,
    Patterns,
    Portion,
    Positive,
    SomePatterns,
    to_dicts,
)
from fgadahat_hooks.spec.callback_specs import (
    HAT,
    AdaHAT,
    AdjustmentSpec,
    ExponentialDecrease,
    FGAdaHAT,
    HATConstAlpha,
    HATRandom,
    ImportanceSpec,
    LinearDecrease,
    LogDecrease,
    PlainSummation,
    SummationSpec,
)
from fgadahat_hooks.spec.errors import Expected, problems, short_repr, variants
from fgadahat_hooks.spec.patterns import RULE

__all__ = [
    "HAT",
    "AdaHAT",
    "AdjustmentSpec",
    "AttachSpec",
    "Block",
    "ExponentialDecrease",
    "FGAdaHAT",
    "GatesSpec",
    "HATConstAlpha",
    "HATRandom",
    "HeadsSpec",
    "ImportanceSpec",
    "LinearDecrease",
    "LogDecrease",
    "PlainSummation",
    "PlasticitySpec",
    "RegularizationSpec",
    "SummationSpec",
    "to_adjustment",
    "to_importance",
    "to_spec",
    "to_summation",
]


class GatesSpec(Block):
    """Which layers get gates, and how a gate behaves."""

    targets: SomePatterns = Field(
        default=("all",), description=f"Layers that get gates: a pattern or a list of patterns. {RULE}"
    )
    exclude: Patterns = Field(default=(), description=f"Layers left out of the targets. {RULE}")
    position: Literal["auto", "output"] = Field(
        default="auto",
        description="Where the gate acts. 'auto': after the norm that follows the layer, where it is the layer's only "
        "consumer and keeps its channels, else on the layer's output. 'output': always on the layer's output.",
    )
    s_max: Positive = Field(
        default=400.0,
        description="Largest gate scale s, reached on the last batch of each epoch; no unit. HAT Eq. 3, stable for 25 "
        "to 800.",
    )
    annealing_power: Positive = Field(
        default=1.0,
        description="Exponent of a batch's place in its epoch, 0 to 1, as the gate scale rises to s_max; no unit. 1: "
        "HAT Eq. 3. Above 1, this library's own addition, gates stay soft for longer.",
    )
    clamp_threshold: Positive = Field(
        default=50.0,
        description="Limit of |s e| when the embedding's gradient is compensated; no unit. HAT Sec. 2.5 and its code.",
    )
    embedding_clamp: Positive = Field(
        default=6.0,
        description="Limit of |e| of a task embedding, applied after each step; no unit. HAT Sec. 2.5 and its code.",
    )
    init: Literal["N01", "U-11", "U01", "U-10", "last"] = Field(
        default="N01",
        description="How a task embedding starts: standard normal, uniform in [-1, 1], [0, 1] or [-1, 0], or as the "
        "last task left it. HAT uses 'N01'; the others are CLArena's `task_embedding_init_mode`.",
    )
    choose: Literal["learn", "share"] = Field(
        default="learn",
        description="How a task's units are chosen. 'learn': by training the task embeddings, HAT. 'share': each task "
        "gets its part of the free units of every layer by lot, and all units that finished tasks use stay open to be "
        "read; masks are hard from the first step, and nothing of them is learnt. This library's own addition.",
    )
    tasks: Count | None = Field(
        default=None,
        description="Number of tasks that 'choose: share' makes room for; no unit. More may come: they get the units "
        "that are left.",
    )

    @model_validator(mode="after")
    def _shares_need_tasks(self) -> GatesSpec:
        if self.choose == "share" and self.tasks is None:
            raise ValueError("expected `tasks`, the number of tasks to make room for, with choose: share.")
        return self


class PlasticitySpec(Block):
    """What keeps the units that finished tasks left open to learning. This library's own additions."""

    rescale: Flag = Field(
        default=False,
        description="Before a task, give the incoming weights of the units that are free, and those of the head, the "
        "scale at attach over the root of the share of open inputs: a unit then gets the signal that it gets without "
        "gates.",
    )
    learning_rates: Literal["as_given", "by_share"] = Field(
        default="as_given",
        description="'by_share': with Adam and its kin, a layer's learning rate is raised by the share of its inputs "
        "that are open and the share of its units that the task can train. 'as_given': left as it is.",
    )
    norm_statistics: Literal["running", "measured"] = Field(
        default="running",
        description="Running statistics that a task's norms are stored with. 'measured': when the task ends, they are "
        "averaged anew over its last batches under the hard mask that is served (at most 64 batches and 64 MiB of "
        "inputs are kept for it). 'running': as training left them.",
    )
    max_factor: Positive = Field(
        default=8.0, description="Limit of a learning rate's factor that comes from closed inputs alone; no unit."
    )
    max_step: Positive = Field(
        default=0.1,
        description="Limit of a raised learning rate, as a part of the standard deviation of the layer's weights at "
        "attach; no unit.",
    )


class HeadsSpec(Block):
    """The layers that give the model's output."""

    names: NamesOrNone = Field(
        default=None,
        description="Exact dotted names of the modules that give the logits: one or a list; null lets the trace find "
        "them, an empty list says that the model has none.",
    )
    mode: Literal["per_task", "shared"] = Field(
        default="per_task",
        description="'per_task': a head for each task (task-incremental). 'shared': one head that all tasks train "
        "(domain-incremental), which is not protected.",
    )


class RegularizationSpec(Block):
    """The sparsity regulariser that is added to the loss."""

    factor: NonNegative = Field(
        default=0.75, description="Factor c of the regulariser; in units of the loss. HAT Eq. 4, stable for 0.1 to 2.5."
    )
    mode: Literal["original", "cross"] = Field(
        default="original",
        description="'original': new units over free units, HAT Eq. 5. 'cross': mean of that and of the unused share "
        "of earlier units, as in AdaHAT's code.",
    )
    budget: Portion = Field(
        default=0.0,
        description="Share of each layer's units that a task may take free of charge, 0 to 1; only what it takes "
        "beyond is punished, so that with 1/T there is room for T tasks. 0: HAT Eq. 5. This library's own addition.",
    )


class AttachSpec(Block):
    """All choices of one run.

    Example:
        >>> spec = AttachSpec(gates={"targets": "all-linear"}, adjustment={"mode": "hat"})
        >>> spec.gates.targets
        ('all-linear',)
    """

    version: Annotated[Literal[1], Expected("1, the version this release reads")] = Field(
        default=1, description="Version of this format."
    )
    gates: GatesSpec = Field(default_factory=GatesSpec, description="Which layers get gates, and how a gate behaves.")
    heads: HeadsSpec = Field(default_factory=HeadsSpec, description="The layers that give the model's output.")
    plasticity: PlasticitySpec = Field(
        default_factory=PlasticitySpec, description="What keeps the free units open to learning."
    )
    norms: Literal["per_task", "freeze", "share"] = Field(
        default="per_task",
        description="Affine parameters and running statistics of norm layers. 'per_task': a copy for each task. "
        "'freeze': as the first task leaves them. 'share': trained by all tasks, which is not protected.",
    )
    rest: Literal["freeze", "per_task", "share"] = Field(
        default="freeze",
        description="Every other parameter and buffer outside the gated layers. 'freeze': as the first task leaves "
        "them. 'per_task': a copy for each task. 'share': trained by all tasks, which is not protected.",
    )
    regularization: RegularizationSpec = Field(
        default_factory=RegularizationSpec, description="The sparsity regulariser that is added to the loss."
    )
    importance: ImportanceSpec = Field(
        default_factory=ImportanceSpec, description="How important a unit is to the running task."
    )
    summation: SummationSpec = Field(
        default_factory=PlainSummation, description="How the importance of finished tasks adds up, FG-AdaHAT Eq. 4."
    )
    adjustment: AdjustmentSpec = Field(
        default_factory=HAT, description="How much of an update reaches a weight that finished tasks use."
    )


def to_spec(spec: object) -> AttachSpec:
    """Return an `AttachSpec` unchanged, or make one from a mapping.

    Raises:
        SpecError: The mapping has problems, all of which are listed, or `spec` is not a mapping.
    """
    checked: AttachSpec = _to_block(AttachSpec, spec)
    return checked


def to_importance(spec: object) -> ImportanceSpec:
    """Return the block `importance` unchanged, or make one from a mapping.

    Raises:
        SpecError: As `to_spec`.
    """
    checked: ImportanceSpec = _to_block(ImportanceSpec, spec)
    return checked


def to_summation(spec: object) -> SummationSpec:
    """Return the block `summation` unchanged, or make one from a mapping.

    Raises:
        SpecError: As `to_spec`.
    """
    checked: SummationSpec = _to_block(SummationSpec, spec)
    return checked


def to_adjustment(spec: object) -> AdjustmentSpec:
    """Return the block `adjustment` unchanged, or make one from a mapping.

    Raises:
        SpecError: As `to_spec`.
    """
    checked: AdjustmentSpec = _to_block(AdjustmentSpec, spec)
    return checked


def _to_block(annotation: Any, spec: object) -> Any:
    """Make a block from a mapping; a block of the right class is returned as it is, since it was validated before."""
    classes = tuple(variants(annotation)[1].values()) or (annotation,)
    if isinstance(spec, classes):
        return spec
    if not isinstance(spec, Mapping):
        raise SpecError([Problem("", _not_a_mapping(classes, spec))])
    try:
        return _adapter(annotation).validate_python(to_dicts(spec))
    except ValidationError as error:
        raise SpecError(problems(annotation, error)) from None
    except RecursionError:
        raise SpecError(
            [Problem("", "expected a spec of a few levels, got too many, or one that holds itself.")]
        ) from None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _not_a_mapping(classes: tuple[type[BaseModel], ...], spec: object) -> str:
    names = " or ".join(["a mapping", *dict.fromkeys(cls.__name__ for cls in classes)])
    text = f"expected {names}, got {short_repr(spec)}."
    if isinstance(spec, type) and issubclass(spec, classes):
        return f"{text} Write {spec.__name__}(), with the brackets."
    is_path = isinstance(spec, str | os.PathLike)
    return f"{text} Read a file with fgadahat_hooks.load_spec first." if is_path else text
