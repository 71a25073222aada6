"""The spec: all choices of a user, validated on construction and immutable.

Each field's description gives its meaning, its unit and its source. The papers are cited as HAT (Serra et al., ICML
2018), AdaHAT (Wang et al., ECML PKDD 2024) and FG-AdaHAT (the successor of AdaHAT by the same first author).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from fgadahat_hooks.errors import Problem, SpecError
from fgadahat_hooks.spec.base import (
    Block,
    NamesOrNone,
    NonNegative,
    Portion,
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
from fgadahat_hooks.spec.gates_spec import GatesSpec
from fgadahat_hooks.spec.plasticity_spec import PlasticitySpec

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
