"""The spec blocks of the three callbacks: importance, summation, adjustment.

The papers are cited as in `attach_spec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fgadahat_hooks import registry
from fgadahat_hooks.errors import FgadahatError
from fgadahat_hooks.spec.base import AboveOne, Block, Count, Flag, Name, NonNegative, Params, Positive, Seed, Share
from fgadahat_hooks.spec.errors import short_repr

ApplyTo = Literal["update", "gradient"]

_APPLY_TO = (
    "What the rate scales. 'update': the optimizer's own step, so that a rate means the same under every optimizer and "
    "a rate of 0 keeps the parameter bit for bit. 'gradient': the papers' literal form, HAT Eq. 2, AdaHAT Eq. 8."
)


class ImportanceSpec(Block):
    """How important a unit is to the running task."""

    type: Name = Field(
        default="input_weight_abs_sum_x_activation_abs",
        description="Importance measure, by its name in `registry.measures`. FG-AdaHAT compares them.",
    )
    params: Params = Field(
        default_factory=dict,
        validate_default=True,
        description="Parameters of the measure, by name; the closed-form measures take none.",
    )
    gradient: Literal["raw", "adjusted"] = Field(
        default="raw",
        description="Gradients a measure reads. 'raw': before clipping and adjustment. 'adjusted': after, as CLArena.",
    )
    every_n_steps: Count = Field(default=1, description="Measure on every n-th step; in optimizer steps.")
    budget: Share | None = Field(
        default=None,
        description="Share of the training time that measuring may take, 0 to 1; the number of steps between two "
        "measured ones adapts to it, above every_n_steps. null: every_n_steps alone, which does not depend on clocks.",
    )
    max_samples: Count | None = Field(
        default=None,
        description="Attribution measures run the model again on at most so many samples of each batch; null: on all. "
        "Other measures take no notice.",
    )
    filter_unmasked: Flag = Field(
        default=True,
        description="Give units outside the task's mask no importance at its end. CLArena's "
        "`filter_unmasked_importance`.",
    )
    multiply_training_mask: Flag = Field(
        default=True,
        description="Multiply each step's importance by the current mask. FG-AdaHAT Eq. 6, CLArena's "
        "`step_multiply_training_mask`.",
    )

    @field_validator("type")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in registry.measures:
            raise ValueError(f"expected the name of a measure, got {name!r}.{registry.measures.hint(name)}")
        return name

    @field_validator("params")
    @classmethod
    def _accepted_by_measure(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Construct the measure, which checks its parameters itself."""
        name = info.data.get("type")
        if name in registry.measures:
            try:
                registry.measures.get(str(name))(**params)
            except (FgadahatError, TypeError) as error:
                raise ValueError(f"expected parameters of {name!r}, got {short_repr(params)}. {error}") from None
        return params


# Below, t is the number of a finished task, T the number of tasks finished so far, and the weight that of task t in the
# sum. Every weight falls with t, i.e. grows with a task's age: older tasks are protected more.


class PlainSummation(Block):
    """A strategy without parameters."""

    tag: ClassVar[str] = "strategy"

    strategy: Literal[
        "add_all", "add_latest", "add_average", "quadratic_decrease", "cubic_decrease", "factorial_decrease"
    ] = Field(
        default="add_all",
        description="Weight of task t's importance in the sum after T tasks, FG-AdaHAT Eq. 4. add_all: T-t+1. "
        "add_latest: 1. add_average: 1/t + 1/(t+1) + ... + 1/T. quadratic_decrease: (T-t+1)^2. cubic_decrease: "
        "(T-t+1)^3. factorial_decrease: (T-t+1)!.",
    )


class LinearDecrease(Block):
    """Weights that grow linearly with a task's age."""

    tag: ClassVar[str] = "strategy"

    strategy: Literal["linear_decrease"] = Field(
        default="linear_decrease", description="Weight linear_step (T-t) + 1. FG-AdaHAT Eq. 4."
    )
    linear_step: Positive = Field(description="How much the weight grows per task; no unit, > 0. FG-AdaHAT Eq. 4.")


class ExponentialDecrease(Block):
    """Weights that grow exponentially with a task's age."""

    tag: ClassVar[str] = "strategy"

    strategy: Literal["exponential_decrease"] = Field(
        default="exponential_decrease", description="Weight exponential_rate^(T-t+1). FG-AdaHAT Eq. 4."
    )
    exponential_rate: AboveOne = Field(description="Factor per task; no unit, > 1. FG-AdaHAT Eq. 4.")


class LogDecrease(Block):
    """Weights that grow with the logarithm of a task's age."""

    tag: ClassVar[str] = "strategy"

    strategy: Literal["log_decrease"] = Field(
        default="log_decrease", description="Weight log(T-t+1) to base log_base, plus 1. FG-AdaHAT Eq. 4."
    )
    log_base: AboveOne = Field(description="Base of the logarithm; no unit, > 1. FG-AdaHAT Eq. 4.")


SummationSpec = Annotated[
    PlainSummation | LinearDecrease | ExponentialDecrease | LogDecrease, Field(discriminator="strategy")
]
"""How the importance of finished tasks adds up."""


def _with_published_intensity(values: Any, intensity: float) -> Any:
    """Use the papers' intensity for rates on the gradient if none is given; for rates on the update it is too small."""
    if isinstance(values, Mapping) and values.get("apply_to") == "gradient":
        return {"intensity": intensity, **values}
    return values


class FGAdaHAT(Block):
    """FG-AdaHAT: the rate falls with the importance of the units a weight connects, FG-AdaHAT Eq. 2."""

    tag: ClassVar[str] = "mode"

    mode: Literal["fg_adahat"] = Field(default="fg_adahat", description="FG-AdaHAT Eq. 2.")
    intensity: Positive = Field(
        default=3e-2,
        description="Adjustment intensity alpha; in units of c times importance. FG-AdaHAT Eq. 2. With apply_to: "
        "gradient the default is 1.5e-7, the authors' of 2026 for Adam with lr 1e-3; others need a larger one.",
    )
    scheduler: Literal["linear_sparsity_reg", "sparsity_reg", "summative_mask_sparsity_reg"] = Field(
        default="linear_sparsity_reg",
        description="Factor c of the importance, FG-AdaHAT Eq. 3: (t + b_L)(R + b_R), R + b_R, or (m + b_L)(R + b_R) "
        "with the number m of tasks that used both units.",
    )
    aggregation: Literal["min", "max", "mean"] = Field(
        default="min", description="From the importance of two units to that of the weight between. FG-AdaHAT Eq. 2."
    )
    base_importance: NonNegative = Field(
        default=0.01,
        description="b_I, added to every unit's importance; no unit (importance is 0 to 1). FG-AdaHAT Eq. 6.",
    )
    base_mask_sparsity_reg: Positive = Field(
        default=0.1, description="b_R, added to the sparsity R; no unit (R is 0 to 1). FG-AdaHAT Eq. 3."
    )
    base_linear: NonNegative = Field(
        default=10.0, description="b_L, added to the task number; in tasks. FG-AdaHAT Eq. 3; its ablation uses 0."
    )
    filter_by_cumulative_mask: Flag = Field(
        default=False,
        description="Multiply the weight's importance by the cumulative mask of its units. CLArena's argument of that "
        "name.",
    )
    apply_to: ApplyTo = Field(default="update", description=_APPLY_TO)

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, values: Any) -> Any:
        return _with_published_intensity(values, 1.5e-7)


class AdaHAT(Block):
    """AdaHAT and its two ablations: the rate falls with the number of tasks that used a weight's units."""

    tag: ClassVar[str] = "mode"

    mode: Literal["adahat", "adahat_no_sum", "adahat_no_reg"] = Field(
        default="adahat",
        description="'adahat': AdaHAT Eq. 9. 'adahat_no_sum': the number of finished tasks in place of the count. "
        "'adahat_no_reg': no sparsity in the strength.",
    )
    intensity: Positive = Field(
        default=1e-3,
        description="Adjustment intensity alpha; in units of task counts. AdaHAT Eq. 9. With apply_to: gradient the "
        "default is 1e-6, the paper's.",
    )
    epsilon: Positive = Field(
        default=0.1, description="Added to the sparsity R of a layer; no unit (R is 0 to 1). AdaHAT Eq. 9."
    )
    apply_to: ApplyTo = Field(default="update", description=_APPLY_TO)

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, values: Any) -> Any:
        return _with_published_intensity(values, 1e-6)


class HAT(Block):
    """HAT, which forgets nothing, and the baseline that protects nothing."""

    tag: ClassVar[str] = "mode"

    mode: Literal["hat", "hat_const_1"] = Field(
        default="hat",
        description="'hat': rate 0 on protected weights, HAT Eq. 2. 'hat_const_1': rate 1, AdaHAT Sec. 4.",
    )
    apply_to: ApplyTo = Field(default="update", description=_APPLY_TO)


class HATRandom(Block):
    """Baseline: a random rate on protected weights, drawn anew at each step."""

    tag: ClassVar[str] = "mode"

    mode: Literal["hat_random"] = Field(
        default="hat_random", description="Rate uniform in [0, 1] on protected weights, AdaHAT Sec. 4."
    )
    seed: Seed = Field(default=0, description="Seed of the rates' own generator; the training stream is not touched.")
    apply_to: ApplyTo = Field(default="update", description=_APPLY_TO)


class HATConstAlpha(Block):
    """Baseline: one rate for all protected weights."""

    tag: ClassVar[str] = "mode"

    mode: Literal["hat_const_alpha"] = Field(
        default="hat_const_alpha", description="The same rate on all protected weights, AdaHAT Sec. 4."
    )
    alpha: NonNegative = Field(description="Rate on protected weights; no unit, 0 is HAT. AdaHAT Sec. 4.")
    apply_to: ApplyTo = Field(default="update", description=_APPLY_TO)


AdjustmentSpec = Annotated[FGAdaHAT | AdaHAT | HAT | HATRandom | HATConstAlpha, Field(discriminator="mode")]
"""How much of an update reaches a weight that finished tasks use."""
